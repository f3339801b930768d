"""Check models against a budget: what passes, what fails, and what CI servers read of it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from networks import residual_network

from tinydeploy import budget
from tinydeploy.cli.main import cli
from tinydeploy.errors import ModelError, UsageError

pytestmark = pytest.mark.qemu

WHOLE = """
[[deployment]]
model = "small.tflite"
target = "mps2-an386"
[deployment.limits]
arena = 20_000
ram = 60_000
flash = 60_000
instructions = 5_000_000
slower_percent = 1

[[deployment]]
model = "small.tflite"
target = "host"
samples = 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.tflite").write_bytes(residual_network())
    (tmp_path / "budget.toml").write_text(WHOLE)
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    given = ["check", "--budget", str(folder / "budget.toml"), *arguments]
    code: int = cli.main(given, standalone_mode=False)
    return code


def test_a_budget_over_its_life(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No baseline fails, one is written, equal code passes, slower or larger code fails."""
    xml = folder / "report.xml"
    assert run(folder) == 4
    assert "--update" in capsys.readouterr().out
    assert run(folder, "--update") == 0
    assert run(folder, "--junit", str(xml)) == 0
    root = ElementTree.fromstring(xml.read_bytes())
    assert root.get("failures") == "0" and len(root) == 2
    assert {c.get("name") for c in root[0]} == {
        "exact", "arena", "ram", "flash", "instructions", "speed"
    }  # fmt: skip
    kept = folder / "tinydeploy-baseline.json"
    figures = json.loads(kept.read_text())
    figures["small.tflite on mps2-an386"] = round(figures["small.tflite on mps2-an386"] / 1.02)
    kept.write_text(json.dumps(figures))
    (folder / "budget.toml").write_text(WHOLE.replace("arena = 20_000", "arena = 100"))
    assert run(folder, "--junit", str(xml)) == 4
    failed = [c.get("name") for c in ElementTree.fromstring(xml.read_bytes()).iter("testcase")
              if c.find("failure") is not None]  # fmt: skip
    assert failed == ["arena", "speed"]


def test_a_difference_is_exit_code_7(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = budget.pipeline.run

    def disturbed(*arguments: Any, **named: Any) -> Any:
        from dataclasses import replace

        measured = real(*arguments, **named)
        return replace(measured, verdict=replace(measured.verdict, differing=1))

    monkeypatch.setattr(budget.pipeline, "run", disturbed)
    assert run(folder) == 7


def test_what_does_not_fit_fails_its_check(folder: Path) -> None:
    (folder / "budget.toml").write_text(
        '[[deployment]]\nmodel = "small.tflite"\ntarget = "tiny.toml"\n'
    )
    from tinydeploy import resources

    toml = (resources.folder("targets") / "mps2-an386.toml").read_text()
    toml = toml.replace('"mps2-an386"\ntitle', '"tiny"\ntitle', 1)
    toml = toml.replace("size = 0x400000", "size = 0x2000")
    (folder / "tiny.toml").write_text(toml)
    (result,) = budget.check_all(folder / "budget.toml")
    assert [c.name for c in result.checks] == ["fits"] and not result.passed


BAD = {
    "misspelt": WHOLE.replace("arena =", "arenna ="),
    "no TOML": "[[deployment",
    "empty": "deployment = []",
    "twice": WHOLE + '[[deployment]]\nmodel = "small.tflite"\ntarget = "host"\n',
    "type": WHOLE.replace("20_000", '"20K"'),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_budgets_are_refused(case: str, folder: Path) -> None:
    (folder / "budget.toml").write_text(BAD[case])
    with pytest.raises(UsageError):
        run(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "small.tflite").unlink()
    with pytest.raises(ModelError):
        run(folder)
    (folder / "budget.toml").unlink()
    with pytest.raises(UsageError, match="cannot read"):
        run(folder)


def test_a_damaged_baseline_is_refused(folder: Path) -> None:
    (folder / "tinydeploy-baseline.json").write_text("[1]")
    with pytest.raises(UsageError, match="damaged"):
        run(folder)
