"""Turn a Graph into the MemoryPlan that the code generator follows."""

from __future__ import annotations

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.plan.arena import allocate_greedy, check_no_overlap
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.liveness import buffers_of, executed, lower_bound
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
    buffers, scratch_buffers = buffers_of(graph, profile, selection)
    bound = lower_bound(buffers)
    offsets, total = allocate_greedy(buffers)
    used = "greedy"
    if allocator == "exact" or (allocator == "auto" and total > bound and solver_installed()):
        offsets, total, bound = allocate_exact(buffers, offsets, total)
        used = "exact"
    check_no_overlap(buffers, offsets)
    return MemoryPlan(
        buffers,
        tuple(offsets),
        tuple(Segment("layer", (p,)) for p in executed(graph)),
        {node: offsets[k] for node, k in scratch_buffers.items()},
        total,
        bound,
        used,
        len(graph.nodes),
        selection,
    )


def peak_step(graph: Graph, plan: MemoryPlan) -> str:
    """Name the node during which most bytes are alive, and how many."""
    best, text = -1, "the inputs"
    for position in executed(graph):
        alive = sum(b.bytes for b in plan.buffers if b.first <= position <= b.last)
        if alive > best:
            node = graph.nodes[position]
            best, text = alive, f"node {position} {node.op} '{node.name[:60]}' ({alive:,} bytes)"
    return text
