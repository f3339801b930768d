"""Turn a MemoryPlan into a table of steps: what each reads and writes, and how much is alive."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.plan.flash import plan_constants
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.liveness import executed
from tinydeploy.plan.planner import peak_step
from tinydeploy.plan.search import Choice
from tinydeploy.targets import Target

_BAR = 16
_ROWS = 24


def show_plan(
    console: Console, graph: Graph, plan: MemoryPlan, target: Target | None, verbose: bool
) -> None:
    """Print the arena's size with its bound, the peak, and bytes alive per step."""
    proven = "the least possible" if plan.optimal else f"lower bound {plan.lower_bound_bytes:,}"
    console.print(f"arena  {plan.arena_bytes:,} bytes ({proven}), allocator: {plan.allocator}")
    console.print(f"peak   {peak_step(graph, plan)}", markup=False)
    if plan.outside:
        size = sum(b.bytes for b in plan.outside)
        console.print(f"inputs {size:,} bytes in flash, only read")
    if plan.several:
        for arena in plan.several:
            console.print(f"       {arena.bytes:,} bytes of it in {arena.memory}", markup=False)
    elif target and target.architecture != "host":
        share = 100 * plan.arena_bytes / target.ram_bytes
        word = "fits" if plan.arena_bytes <= target.ram_bytes else "does NOT fit"
        console.print(
            f"board  {word}: {share:.1f} % of {target.ram_bytes:,} bytes of RAM on {target.name}, "
            "firmware and stack not counted",
            markup=False,
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (("step", True), ("operator", False), ("output at", True),
                        ("held", True), ("bytes", True), ("alive", True), ("", False)):  # fmt: skip
        table.add_column(name, justify="right" if right else "left")
    positions = executed(graph, plan.selection)
    alive = {p: plan.occupied(p) for p in positions}
    shown = positions if verbose else sorted(sorted(positions, key=lambda p: -alive[p])[:_ROWS])
    for p in shown:
        out = graph.nodes[p].outputs[0]
        memory, at = plan.within(plan.offset_of(out))
        bar = "#" * max(1, round(_BAR * alive[p] / max(plan.arena_bytes, 1)))
        layout, held = plan.selection.layout(out), plan.items.held.get(out)
        size = layout.bytes(graph.tensors[out])
        rows = ""
        if held is not None:  # the rows that are still needed, each at a place of its own
            size = held * layout.row_bytes(graph.tensors[out])
            rows = f"{held}/{graph.tensors[out].rows}"
        table.add_row(
            str(p), graph.nodes[p].op, " ".join((f"{at:,}", memory)).strip() if not rows else "",
            rows, f"{size:,}", f"{alive[p]:,}", bar,
        )  # fmt: skip
    console.print(table)
    if len(shown) < len(positions):
        console.print(f"{len(positions) - len(shown)} steps with fewer bytes alive: -v shows them")


def show_front(
    console: Console, front: Sequence[Choice], plan: MemoryPlan, profile: IntegerProfile
) -> None:
    """Print the plans that no other beats: RAM, constants in flash, estimated instructions."""
    fastest = min(c.instructions for c in front)
    head = "front  arena bytes   constants   instructions, of the fastest (estimated)"
    console.print(head, markup=False)
    for choice in front:
        factor = f", {choice.mac_factor:.2f} times the MACs" if choice.strips else ""
        chosen = "  <- this plan" if choice.plan == plan else ""
        constants = plan_constants(choice.graph, profile, choice.plan)
        console.print(
            f"       {choice.plan.arena_bytes:>11,} {constants:>11,}   "
            f"{choice.instructions / fastest:.3f} times{factor}{chosen}",
            markup=False,
        )
