"""Turn published schedules of a network beside its plan into a table with bars."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.published.schedule import Schedule
from tinydeploy.report import document as doc

_BAR = 20
_MOST_PIECES = 3


def compare_figures(
    plan: MemoryPlan,
    plan_factor: float,
    published: Sequence[tuple[str, Schedule]],
    mac_factor: float,
    input_counted: bool,
) -> doc.CompareFigures:
    """Return the part of the document; `published` are schedules and what they are known by."""
    return doc.CompareFigures(
        mac_factor=mac_factor,
        input_counted=input_counted,
        plan=doc.ScheduleFigures(
            method="this plan",
            known_as="tinydeploy",
            arena_bytes=plan.arena_bytes if input_counted else None,
            without_input_bytes=None if input_counted else plan.arena_bytes,
            mac_factor=plan_factor,
        ),
        published=[
            doc.ScheduleFigures(
                method=s.method,
                known_as=known,
                arena_bytes=s.arena_bytes,
                without_input_bytes=s.without_input,
                mac_factor=round(s.mac_factor, 6),
                pieces=[doc.PieceFigures(first=p.start, last=p.end - 1, how=p.how)
                        for p in s.pieces if p.how],
            )
            for known, s in published
        ],
    )  # fmt: skip


def show_compare(console: Console, figures: doc.CompareFigures) -> None:
    """Print a row and a bar per method, the plan's own first."""
    rows = [figures.plan, *figures.published]
    most = max(_judged(row, figures) for row in rows)
    inputs = "with" if figures.input_counted else "without"
    console.print(
        f"compare  bytes alive {inputs} the inputs, published schedules at up to "
        f"{figures.mac_factor:.2f} times the MACs (this plan: all of its arena)",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (("method", False), ("known as", False), ("with input", True),
                        ("without", True), ("MACs", True), ("", False)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("nodes", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        style = "bold green" if row is figures.plan else ""
        filled = max(1, round(_BAR * _judged(row, figures) / most))
        table.add_row(
            row.method, row.known_as, _bytes(row.arena_bytes), _bytes(row.without_input_bytes),
            f"{row.mac_factor:.2f}", Text("█" * filled, style or "cyan"), Text(_how(row)),
            style=style,
        )  # fmt: skip
    console.print(table)


def _judged(row: doc.ScheduleFigures, figures: doc.CompareFigures) -> int:
    """Return the bytes by which the schedules were chosen."""
    size = row.arena_bytes if figures.input_counted else row.without_input_bytes
    assert size is not None
    return max(size, 1)


def _bytes(size: int | None) -> str:
    return "" if size is None else f"{size:,}"


def _how(row: doc.ScheduleFigures) -> str:
    said = [f"{p.first}-{p.last}: {p.how}" for p in row.pieces[:_MOST_PIECES]]
    if len(row.pieces) > _MOST_PIECES:
        said.append(f"and {len(row.pieces) - _MOST_PIECES} more")
    return "; ".join(said)
