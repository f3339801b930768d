"""The README's tables are what the code says."""

from pathlib import Path

from tinydeploy.report.readme import with_tables

ROOT = Path(__file__).resolve().parents[2]


def test_tables_are_current() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| DEPTHWISE_CONV_2D |" in text and "| mps2-an386 |" in text
    assert with_tables(text) == text, "run: python -m tinydeploy.report.readme README.md"
