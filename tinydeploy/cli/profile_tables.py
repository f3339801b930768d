"""Turn profiles, kept ones and what changed between two into tables on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tinydeploy.history import Change, Run
from tinydeploy.profiling import Profile, Spread


def profile_table(profile: Profile, wanted_runs: int | None = None) -> Table:
    """Return what each node costs; `wanted_runs` is how many there will be, while it goes on."""
    p = profile
    progress = f"{p.runs} of {wanted_runs}" if wanted_runs else f"{p.runs}"
    runs = f"{progress} run{'' if p.runs == 1 and not wanted_runs else 's'}"
    board = p.unit == "cycles"
    table = _table(f"{p.model} on {p.target} at {p.port}, {runs}; {p.unit}")
    for name in ("MACs", "min", "median", "max", f"MAC/{p.unit.rstrip('s')}"):
        table.add_column(name, justify="right")
    if board:
        table.add_column("ms", justify="right")

    def add(name: str, op: str, macs: int, count: Spread) -> None:
        rate = f"{macs / count.median:.2f}" if macs and count.median else ""
        time = p.milliseconds(count.median)
        cells = [op, f"{macs:,}", f"{count.least:,}", f"{count.median:,}", f"{count.most:,}", rate]
        table.add_row(Text(name), *cells, *([f"{time:.3f}"] if time is not None else []))

    for node in p.nodes:
        add(node.name, node.op, node.macs, node.count)
    table.add_section()
    add("total", "", sum(node.macs for node in p.nodes), p.total)
    table.add_row("stack, bytes", "", "", "", "", f"{p.stack_bytes:,}")
    return table


def history_table(runs: Sequence[Run]) -> Table:
    """Return the kept profiles, a line each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "time (UTC)", "model", "target", "port"):
        table.add_column(name, overflow="fold")
    table.add_column("median", justify="right")
    for name in ("unit", "flags", "commit", "note"):
        table.add_column(name, overflow="fold")
    for run in runs:
        p, c = run.profile, run.circumstances
        table.add_row(
            str(run.id), c.time[:16].replace("T", " "), Text(p.model), p.target, p.port,
            f"{p.total.median:,}", p.unit, c.optimisation, c.commit, Text(c.note),
        )  # fmt: skip
    return table


def differing(before: Run, after: Run) -> list[tuple[str, str, str]]:
    """Return the circumstances in which two runs differ: name, before, after."""
    old, new = _facts(before), _facts(after)
    return [(name, old[name], new[name]) for name in old if old[name] != new[name]]


def _facts(run: Run) -> dict[str, str]:
    p, c = run.profile, run.circumstances
    return {
        "model": p.model, "model sha256": p.model_sha256[:16], "target": p.target, "port": p.port,
        "clock": f"{p.clock_hz:,} Hz", "compiler": c.compiler, "flags": c.optimisation,
        "plan": c.plan, "tinydeploy": c.version, "commit": c.commit, "note": c.note,
        "stack": f"{p.stack_bytes:,} bytes", "runs": str(p.runs),
    }  # fmt: skip


def comparison_table(before: Run, after: Run, changes: Sequence[Change], total: Change) -> Table:
    """Return the medians of two runs side by side, per node and in all."""
    unit = after.profile.unit
    table = _table(f"{before.id} -> {after.id}; {unit}")
    for name in ("before", "after", "change", "%"):
        table.add_column(name, justify="right")

    def add(change: Change) -> None:
        old, new, percent = change.before, change.after, change.percent
        table.add_row(
            Text(change.name),
            change.op,
            "-" if old is None else f"{old:,}",
            "-" if new is None else f"{new:,}",
            "" if old is None or new is None else f"{new - old:+,}",
            "" if percent is None else f"{percent:+.1f}",
        )

    for change in changes:
        add(change)
    table.add_section()
    add(total)
    return table


def _table(title: str) -> Table:
    """Return a table of nodes, a line each: names of nodes are long and say most at their start."""
    table = Table(
        box=None, pad_edge=False, header_style="bold", title=Text(title), title_justify="left"
    )
    table.add_column("node", no_wrap=True, max_width=40)
    table.add_column("operator", no_wrap=True, max_width=30)
    return table
