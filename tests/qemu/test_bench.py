"""Figures that must not get worse, and tuning that must not change a bit."""

import json
import sqlite3
from pathlib import Path

import pytest

from tinydeploy import pipeline, tuning
from tinydeploy.bench import run_all, run_one, worse, write_rows
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
BASELINE = ROOT / "benchmarks" / "baseline.json"


def baseline() -> list[dict]:
    return json.loads(BASELINE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", sorted({row["target"] for row in baseline()}))
def test_nothing_is_worse_than_the_baseline(target: str) -> None:
    """Refresh with: tinydeploy bench examples/digits/digits_int8.tflite -t ... -o baseline.json"""
    rows = [row for row in baseline() if row["target"] == target]
    modes = [row["optimize"] for row in rows]
    now = run_all([DIGITS], [load_target(target)], modes, "litert")
    assert all(row["exact"] for row in now)
    assert not worse(rows, now)


def test_a_worse_figure_is_noticed() -> None:
    rows = baseline()
    grown = [{**row, "instructions": row["instructions"] * 1.02} for row in rows]
    assert len(worse(rows, grown)) == len(rows)
    assert not worse(rows, [{**row, "instructions": row["instructions"] * 1.005} for row in rows])
    assert len(worse(rows, rows[1:])) == 1


def test_tables_and_files(small: Path, tmp_path: Path) -> None:
    row = run_one(small, load_target("mps2-an386"), "balanced", "litert")
    assert row["exact"] and row["est. cycles"] > row["instructions"] > 0
    write_rows(tmp_path / "x.md", [row])
    write_rows(tmp_path / "x.json", [row])
    assert "| small |" in (tmp_path / "x.md").read_text()
    assert json.loads((tmp_path / "x.json").read_text()) == [row]


def test_tuning_is_remembered_used_and_resumed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYDEPLOY_CACHE", str(tmp_path / "cache" / "tuning.sqlite"))
    board = load_target("mps2-an386")
    core = pipeline.core_of(board, "balanced")
    clock = pipeline.Clock()
    prepared = pipeline.prepare(small, "litert", "greedy", clock, core)
    assert tuning.preferred(prepared.graph, prepared.profile, board, "balanced") == {}
    first = tuning.tune(prepared, board, clock)
    assert first.after <= first.before
    again = tuning.tune(prepared, board, clock)
    assert again.runs < max(first.runs, 2) and again.after == first.after
    found = tuning.preferred(prepared.graph, prepared.profile, board, "balanced")
    assert found
    assert run_one(small, board, "balanced", "litert")["exact"]
    # A count that is missing is measured again, the others are not.
    with sqlite3.connect(tuning.cache_path()) as connection:
        slowest = "select rowid from counts order by instructions desc limit 1"
        connection.execute(f"delete from counts where rowid in ({slowest})")
    assert tuning.tune(prepared, board, clock).after == first.after


def test_a_damaged_cache_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinydeploy.errors import UsageError

    path = tmp_path / "tuning.sqlite"
    path.write_bytes(b"not a database" * 100)
    monkeypatch.setenv("TINYDEPLOY_CACHE", str(path))
    board = load_target("mps2-an386")
    clock = pipeline.Clock()
    prepared = pipeline.prepare(DIGITS, "litert", "greedy", clock)
    with pytest.raises(UsageError, match="cannot be used"):
        tuning.preferred(prepared.graph, prepared.profile, board, "balanced")
