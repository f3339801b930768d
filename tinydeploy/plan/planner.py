"""Turn a Graph into the MemoryPlan that the code generator follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.plan.arena import Pairs, allocate_greedy, check_no_overlap
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.liveness import Needs, buffers_of, executed, lower_bound
from tinydeploy.plan.select import Selection, portable


def plan_layers(
    graph: Graph,
    allocator: str = "auto",
    selection: Selection | None = None,
    profile: IntegerProfile = PROFILES["litert"],
) -> MemoryPlan:
    """Plan layer by layer: each node runs whole, its output in one buffer.

    allocator: "greedy", "exact" (needs the extra `solver`), or "auto": greedy, and exact where
    greedy misses the liveness bound and the solver is installed. Without a selection the kernels
    are the portable ones.
    """
    selection = selection or portable(graph, profile)
    needs = buffers_of(graph, profile, selection)
    bound = lower_bound(needs.buffers)
    offsets, total = allocate_greedy(needs.buffers)
    used = "greedy"
    if allocator == "exact" or (allocator == "auto" and total > bound and solver_installed()):
        offsets, total, bound = allocate_exact(needs.buffers, offsets, total)
        used = "exact"
    return placed(graph, selection, needs, layers(graph, selection), offsets, bound, used)


def layers(graph: Graph, selection: Selection) -> tuple[Segment, ...]:
    """Return one segment per node that does work."""
    return tuple(Segment("layer", (p,)) for p in executed(graph, selection))


def placed(
    graph: Graph,
    selection: Selection,
    needs: Needs,
    segments: tuple[Segment, ...],
    offsets: Sequence[int],
    bound: int,
    used: str,
    pairs: Pairs | None = None,
    streamed_input: bool = False,
) -> MemoryPlan:
    """Return a plan with its buffers at the given offsets; raises ValueError if they collide."""
    buffers = needs.buffers
    check_no_overlap(buffers, offsets, pairs or {})
    total = max((o + b.bytes for o, b in zip(offsets, buffers, strict=True)), default=0)

    def at(places: Mapping[int, int]) -> dict[int, int]:
        return {node: offsets[k] for node, k in places.items()}

    return MemoryPlan(
        buffers,
        tuple(offsets),
        segments,
        at(needs.scratch),
        at(needs.pad_rows),
        at(needs.accumulators),
        total,
        bound,
        used,
        len(graph.nodes),
        selection,
        streamed_input,
        needs.outside,
        pairs=pairs or {},
    )


def peak_step(graph: Graph, plan: MemoryPlan) -> str:
    """Name the node during which most bytes are alive, and how many."""
    best, text = -1, "the inputs"
    for position in executed(graph, plan.selection):
        alive = plan.occupied(position)
        if alive > best:
            node = graph.nodes[position]
            best, text = alive, f"node {position} {node.op} '{node.name[:60]}' ({alive:,} bytes)"
    return text
