"""tinydeploy lut: tables, files, refusals, and the page whose figures it makes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest
from hostlib import STRICT, compile_c

from tinydeploy.cli.main import run
from tinydeploy.report.luts import with_errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        run(["lut", *arguments])
    return int(stopped.value.code or 0)


def test_a_table_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("gelu", "--entries", "8") == 0
    text = capsys.readouterr().out
    assert "optimal" in text and len(text.splitlines()) == 12
    assert call("gelu", "--entries", "8", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mse"] < 7.2e-5 and len(found["slopes"]) == len(found["breakpoints"]) + 1 == 8


def test_the_search_repeats_itself(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for seed in ("1", "1", "2"):
        assert call("exp", "--method", "gqa", "--generations", "30", "--seed", seed) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


def test_all_methods_and_their_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "exp.svg"
    assert call("exp", "--compare", "--generations", "30", "--out", str(picture), "--json") == 0
    rows = {row["method"]: row["mse"] for row in json.loads(capsys.readouterr().out)}
    assert rows["exact"] == 0.0 and rows["optimal"] <= min(rows["gqa"], rows["uniform"])
    assert len(Xml.parse(picture).findall(".//{http://www.w3.org/2000/svg}path")) == 8


@pytest.mark.parametrize("bits", ["8", "16"])
def test_files(bits: str, tmp_path: Path) -> None:
    for ending in ("c", "h", "hex"):
        assert call("rsqrt", "--bits", bits, "--out", str(tmp_path / f"r.{ending}")) == 0
    (tmp_path / "user.c").write_text(
        '#include "r.h"\nint main(void)\n{\n    return td_lut_rsqrt(100) == 0;\n}\n'
    )
    compile_c([tmp_path / "r.c"], tmp_path / "r.o", ["-c", *STRICT])
    compile_c([tmp_path / "user.c"], tmp_path / "user", STRICT)
    assert re.fullmatch(r"(:[0-9A-F]+\n)+", (tmp_path / "r.hex").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["gelu", "--range", "1", "1"],
        ["gelu", "--range", "nan", "1"],
        ["gelu", "--range", "0", "1e9"],
        ["div", "--range", "-1", "1"],
        ["exp", "--range", "0", "80"],
        ["gelu", "--entries", "1"],
        ["gelu", "--method", "magic"],
        ["gelu", "--out", "table.txt"],
        ["gelu", "--method", "exact", "--out", "table.c"],
        ["gelu", "--out", "/nowhere/table.c"],
    ],
    ids=" ".join,
)
def test_useless_wishes_are_refused(arguments: list[str]) -> None:
    assert call(*arguments) == 2


def test_the_page_has_the_errors_that_the_methods_make() -> None:
    """Those of methods without chance; the page is made with the whole genetic search."""
    page = PAGE.read_text(encoding="utf-8")
    made = with_errors(page, generations=1)

    def without_search(text: str) -> list[list[str]]:
        rows = [line.split(" | ") for line in text.splitlines() if line.count(" | ") == 8]
        return [row[:2] + row[3:5] + row[6:] for row in rows]

    assert len(without_search(page)) == 11
    assert without_search(made) == without_search(page)
