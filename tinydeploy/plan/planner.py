"""Turn segments of a Graph into the MemoryPlan that the code generator follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.plan.arena import check_no_overlap
from tinydeploy.plan.eject import EFFORT, allocate_greedy
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.items import Cut, items_of
from tinydeploy.plan.layout import Items, MemoryPlan, Segment
from tinydeploy.plan.liveness import Needs, buffers_of, executed
from tinydeploy.plan.rows import streaming_selection
from tinydeploy.plan.select import Selection, portable
from tinydeploy.plan.stream import Scheduler

_PIECES = 120  # of all items, up to which the solver is asked unless it must be
_FAR = 1 << 15  # bytes between rows from which kernels are told


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
    cuts: list[Cut] = [((p,), None) for p in executed(graph, selection)]
    return materialise(graph, profile, selection, None, cuts, allocator, seconds=10.0)


def materialise(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    scheduler: Scheduler | None,
    cuts: Sequence[Cut],
    allocator: str,
    streamed_input: bool = False,
    seconds: float = 0.1,
    effort: int = EFFORT,
) -> MemoryPlan:
    """Return the plan of given segments, its items placed."""
    final, needs, items = prepared(graph, profile, selection, scheduler, cuts, streamed_input)
    offsets, bound, used = _allocated(items, allocator, effort, seconds)
    return placed(graph, profile, final, needs, items, cuts, offsets, bound, used, streamed_input)


def placed_again(
    graph: Graph,
    profile: IntegerProfile,
    plan: MemoryPlan,
    allocator: str,
    effort: int,
    seconds: float = 0.0,
) -> MemoryPlan:
    """Return a plan with its items placed with more effort, the same one if that does not help."""
    offsets, bound, used = _allocated(plan.items, allocator, effort, seconds)
    total = max(o + i.bytes for o, i in zip(offsets, plan.items.items, strict=True))
    if total >= plan.arena_bytes:
        return replace(plan, lower_bound_bytes=max(bound, plan.lower_bound_bytes))
    check_no_overlap(plan.items.items, offsets)
    try:
        selection = _spread(graph, profile, plan.selection, plan.items, offsets)
    except ValueError:
        return plan
    return replace(
        plan, offsets=tuple(offsets), arena_bytes=total, lower_bound_bytes=bound, allocator=used,
        selection=selection,
    )  # fmt: skip


def _allocated(
    items: Items, allocator: str, effort: int, seconds: float
) -> tuple[list[int], int, str]:
    """Return offsets, what no arena can be smaller than, and the allocator that found them."""
    bound = items.bound
    offsets, total = allocate_greedy(items.items, bound, effort)
    asked = sum(len(i.pieces) for i in items.items) <= _PIECES and solver_installed()
    if allocator == "exact" or (allocator == "auto" and total > bound and asked):
        offsets, total, bound = allocate_exact(items.items, offsets, total, seconds, bound)
        return offsets, bound, "exact"
    return offsets, bound, "greedy"


def prepared(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    scheduler: Scheduler | None,
    cuts: Sequence[Cut],
    streamed_input: bool,
) -> tuple[Selection, Needs, Items]:
    """Return the kernels of given segments, and what has to be placed for them."""
    streams = [s for _, s in cuts if s]
    final = streaming_selection(graph, profile, selection, streams)
    inner = {t for s in streams for t in s.inner}
    spans = with_views(graph, cuts)
    needs = buffers_of(graph, profile, final, [nodes for nodes, _ in spans], streamed_input, inner)
    return final, needs, items_of(graph, final, scheduler, spans, needs, streamed_input)


def with_views(graph: Graph, cuts: Sequence[Cut]) -> list[Cut]:
    """Add a segment of its own for every view, so that each node is in one."""
    inside = {p for nodes, _ in cuts for p in nodes}
    views: list[Cut] = [((p,), None) for p in range(len(graph.nodes)) if p not in inside]
    return sorted([*cuts, *views], key=lambda c: c[0])


def placed(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    needs: Needs,
    items: Items,
    cuts: Sequence[Cut],
    offsets: Sequence[int],
    bound: int,
    used: str,
    streamed_input: bool = False,
) -> MemoryPlan:
    """Return a plan with its items at the given offsets.

    Raises ValueError if they collide, or rows lie where a kernel cannot reach them.
    """
    check_no_overlap(items.items, offsets)
    total = max((o + i.bytes for o, i in zip(offsets, items.items, strict=True)), default=0)
    selection = _spread(graph, profile, selection, items, offsets)
    return MemoryPlan(
        needs.buffers,
        tuple(offsets),
        _segments(cuts),
        needs.scratch,
        needs.pad_rows,
        needs.accumulators,
        total,
        bound,
        used,
        len(graph.nodes),
        selection,
        streamed_input,
        needs.outside,
        items=items,
    )


def _spread(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    items: Items,
    offsets: Sequence[int],
) -> Selection:
    """Return the selection with what is known now of how far apart neighbouring rows lie."""
    layouts = dict(selection.layouts)
    for t, places in items.rows.items():
        at = np.array([offsets[k] + start for k, start in places], np.int64)
        apart = int(np.abs(np.diff(at)).max(initial=0))
        far = apart // layouts[t].row_bytes(graph.tensors[t]) + 1 if apart >= _FAR else 1
        layouts[t] = replace(layouts[t], ring=far)
    found = replace(selection, layouts=layouts)
    for p in found.streamed:
        kernel = found.kernels[p]
        if kernel is not None and not kernel.accepts(found.site(graph, p, profile)):
            raise ValueError(f"rows of node {p} lie too far apart for {kernel.function}")
    return found


def _segments(cuts: Sequence[Cut]) -> tuple[Segment, ...]:
    return tuple(
        Segment("layer", nodes)
        if s is None
        else Segment("streamed", nodes, tuple(s.calls.tolist()), s.feeds, s.paces)
        for nodes, s in cuts
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
