"""Turn rows of figures into terminal and Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_rows(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows that share their keys as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items():
        number = isinstance(value, int) and not isinstance(value, bool)
        table.add_column(key, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(_cell(v)) for v in row.values()))
    console.print(table)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows that share their keys as a Markdown table."""
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += [
        "| " + " | ".join(_cell(row[k]).replace("|", "\\|") for k in keys) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value)
