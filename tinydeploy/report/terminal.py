"""Turn a Document into what a person reads in a terminal, at most 30 lines."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tinydeploy.report.document import Document
from tinydeploy.targets import Target

_NODES = 12
_BAR = 20


def show_document(
    console: Console, document: Document, target: Target | None = None, out: Path | None = None
) -> None:
    """Print verdict, memory, cost per node and where the files are."""
    d = document
    console.print(
        Text.assemble((d.model.name, "bold"), f"  {d.model.macs:,} MACs",
                      f"  on {target.title}" if target else "")
    )  # fmt: skip
    if d.verify:
        style, word = (
            ("bold green", "bit-exact") if d.verify.bit_exact else ("bold red", "MISMATCH")
        )
        console.print(
            Text.assemble((word, style), f"  {d.verify.values:,} output values of ",
                          f"{d.verify.samples} inputs ({d.verify.inputs}), oracle: ",
                          f"{d.verify.oracle}, semantics: {d.profile}")
        )  # fmt: skip
    if d.accuracy:
        a = d.accuracy
        unit = "top-1" if a.metric == "top1" else "area under the ROC curve"
        floats = "" if a.floats is None else f"{100 * a.floats:.2f} % in float, "
        console.print(
            f"accuracy  {100 * a.device:.2f} % on the device, {100 * a.reference:.2f} % in the "
            f"reference, {floats}{unit} of {a.samples} samples"
        )
    _memory(console, d, target)
    if d.profile_run:
        _nodes(console, d)
    for line in d.warnings:
        console.print(f"warning   {line}", style="yellow", markup=False)
    seconds = sum(s.seconds for s in d.stages)
    console.print(
        f"time      {seconds:.1f} s: " + ", ".join(f"{s.name} {s.seconds:.1f}" for s in d.stages)
    )
    if out:
        console.print(f"files     {out}")


def _memory(console: Console, d: Document, target: Target | None) -> None:
    m = d.memory
    bound = "the least possible for it" if m.optimal else f"bound {m.lower_bound_bytes:,}"
    streamed = any(s.kind == "streamed" for s in d.plan.segments)
    how = "streamed" if streamed else "layer by layer"
    console.print(f"arena     {m.arena_bytes:,} bytes {how} ({bound})")
    if m.input_bytes:
        console.print(f"inputs    {m.input_bytes:,} bytes in flash, not counted below")
    uses = [u for u in m.memories if u.used_bytes]
    bars = [(u.name, u.used_bytes, u.size) for u in uses] if len(uses) > 2 else []
    for label, used, size in bars or (
        ("RAM", m.ram_bytes, target.ram_bytes if target else 0),
        ("flash", m.flash_bytes, target.flash_bytes if target else 0),
    ):
        if used is None:
            continue
        if target and target.architecture != "host":
            share = used / size
            filled = min(_BAR, max(1, round(share * _BAR)))
            bar = "#" * filled + "." * (_BAR - filled)
            console.print(f"{label:<9} {used:>9,} of {size:,} bytes  [{bar}] {100 * share:.1f} %",
                          markup=False)  # fmt: skip
        else:
            console.print(f"{label:<9} {used:>9,} bytes")
    if m.code_in_ram_bytes:
        console.print(f"placed    {m.code_in_ram_bytes:,} bytes of the model's code run from RAM")
    if m.code_bytes is not None:
        console.print(
            f"code      {m.model_code_bytes:,} bytes of the model, {m.code_bytes:,} with firmware; "
            f"constants {m.const_bytes:,}; stack {m.stack_bytes:,} used"
        )


def _nodes(console: Console, d: Document) -> None:
    assert d.profile_run is not None
    run = d.profile_run
    kind = {"instructions": "emulated", "cycles": "measured"}.get(run.unit, "measured")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("node")
    table.add_column("operator")
    table.add_column("MACs", justify="right")
    table.add_column(run.unit, justify="right")
    table.add_column("share", justify="right")
    table.add_column(f"MAC/{run.unit.rstrip('s')}", justify="right")
    ranked = sorted(enumerate(run.nodes), key=lambda pair: -pair[1].count)
    shown = sorted(ranked[:_NODES])
    for step, node in shown:
        share = node.count / run.total if run.total else 0
        rate = f"{node.macs / node.count:.3f}" if node.macs and node.count else ""
        table.add_row(
            str(step), node.op, f"{node.macs:,}" if node.macs else "", f"{node.count:,}",
            f"{100 * share:.1f} %", rate,
        )  # fmt: skip
    rest = ranked[_NODES:]
    if rest:
        table.add_row("...", f"{len(rest)} cheaper ones", "", f"{sum(n.count for _, n in rest):,}")
    rate = f"{d.model.macs / run.total:.3f}" if run.total else ""
    table.add_row("total", f"({kind})", f"{d.model.macs:,}", f"{run.total:,}", "", rate)
    console.print(table)


def mismatch_text(d: Document) -> str:
    """Say in a few lines what differs first and what to try."""
    assert d.verify is not None and d.verify.first_mismatch is not None
    v, m = d.verify, d.verify.first_mismatch
    assert m is not None
    what = f"{v.differing:,} of {v.values:,} output values differ, by up to {v.max_abs_diff:g}"
    place = (
        f"sample {m.sample}, tensor '{m.tensor}', index {m.index}: {m.got:g}, not {m.expected:g}"
    )
    if m.node is None:
        return (
            f"{what}\nevery node equals the reference, but the expected file differs: {place}\n"
            "was it made by another runtime? try --profile tflm, or LiteRT's reference kernels"
        )
    return f"{what}\nfirst differing node: {m.node} {m.op} '{m.name}'; {place}"
