"""Turn a plan into the reasons for its size: what makes the peak, and what would lower it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, op_named
from tinydeploy.plan.describe import Place, SegmentView, in_use, peak, peak_call, segment_views
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.variants import Change, UnfitError, apply, changes

Replan = Callable[[Graph], MemoryPlan]
_MOST = 40  # variants that are planned at all


@dataclass(frozen=True, slots=True)
class Reader:
    """Name a node that reads held rows, and how many of them its window spans at a time."""

    node: int
    op: str
    taps: int
    reach: int


@dataclass(frozen=True, slots=True)
class PeakPart:
    """Describe what is in use at the peak's call: `bytes` of a buffer, or `rows` of a tensor.

    Of rows: who reads them and, when more are held than any window spans, which nodes make them
    wait: a sum that skips over those reads its rows only when theirs are done.
    """

    place: Place
    bytes: int
    rows: int = 0
    readers: tuple[Reader, ...] = ()
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """Hold the arena (bytes) of the network with one change.

    searched: its segments were searched for; otherwise they are those of the plan, and a search
    could only find less.
    """

    change: Change
    op: str
    arena_bytes: int
    searched: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Hold why an arena is as large as it is.

    view: the segment at the peak; parts: what is in use at the call at which most is, largest
    first, together the bytes alive there; next_bytes: what is alive in the largest other segment,
    below which changes at the peak alone cannot bring the arena; untried: changes there was no time
    for.
    """

    arena_bytes: int
    view: SegmentView
    parts: tuple[PeakPart, ...]
    next_bytes: int
    variants: tuple[Variant, ...]
    untried: int


def explain(
    graph: Graph,
    plan: MemoryPlan,
    search: Replan,
    keep: Replan,
    seconds: float = 8.0,
    one_search: float = 0.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:
    """Return the peak's parts, and the arena after each change to the layers that make it.

    search: plan a network from scratch; keep: plan it with the segments of `plan` (ValueError
    where they do not work). First every change is planned with the segments kept, at least one,
    then the most promising ones are searched for, as long as `seconds` in all are likely to do;
    `one_search` is how long a search took before.
    """
    view = peak(graph, plan)
    used = in_use(view.places, peak_call(plan, view))
    parts = [_part(graph, view, *p) for p in zip(view.places, used, strict=True) if p[1]]
    views = segment_views(graph, plan)
    others = [v.alive_bytes for v in views if v.segment.nodes != view.segment.nodes]
    wanted = list(_applied(graph, view))
    until = time.monotonic() + seconds
    found: list[Variant] = []
    graphs: list[Graph] = []
    for change, variant in wanted:
        if found and time.monotonic() > until:
            break
        try:
            arena = keep(variant).arena_bytes
        except ValueError:
            continue
        found.append(Variant(change, graph.nodes[change.node].op, arena, False))
        graphs.append(variant)
        progress(len(found), 2 * len(wanted))
    longest = one_search
    for k in sorted(range(len(found)), key=lambda k: found[k].arena_bytes):
        started = time.monotonic()
        if started + longest > until:
            break
        v = found[k]
        arena = min(v.arena_bytes, search(graphs[k]).arena_bytes)
        found[k] = Variant(v.change, v.op, arena, True)
        longest = max(longest, time.monotonic() - started)
        progress(len(wanted) + sum(v.searched for v in found), 2 * len(wanted))
    return Explanation(
        plan.arena_bytes,
        view,
        tuple(sorted(parts, key=lambda part: -part.bytes)),
        max(others, default=0),
        tuple(sorted(found, key=lambda v: v.arena_bytes)),
        len(wanted) - len(found),
    )


def _applied(graph: Graph, view: SegmentView) -> list[tuple[Change, Graph]]:
    """Return the valid changes at the peak: at its nodes, and at who made what it reads."""
    alive = frozenset(t for p in view.places for t in p.tensors)
    makers = [p for p, n in enumerate(graph.nodes) if any(o in alive for o in n.outputs)]
    nodes = tuple(dict.fromkeys((*view.segment.nodes, *makers)))
    found: list[tuple[Change, Graph]] = []
    for change in changes(graph, nodes, alive):
        if len(found) == _MOST:
            break
        try:
            found.append((change, apply(graph, change)))
        except UnfitError:
            continue
    return found


def _part(graph: Graph, view: SegmentView, place: Place, used: int) -> PeakPart:
    if place.kind != "ring":
        return PeakPart(place, used)
    rows = used * place.rows_held // place.bytes
    readers = []
    for p in view.segment.nodes:
        node = graph.nodes[p]
        for source in op_named(node.op).region(Call(graph, node)) or ():
            if node.inputs[source.input] in place.tensors:
                reach = (source.taps - 1) * source.dilation + 1
                readers.append(Reader(p, node.op, source.taps, reach))
    waits: tuple[int, ...] = ()
    if readers and place.rows_held > max(r.reach for r in readers) + 1:
        maker = min(p for p, n in enumerate(graph.nodes) if set(n.outputs) & set(place.tensors))
        last = max(r.node for r in readers)
        waits = tuple(p for p in view.segment.nodes if maker < p < last and _windows(graph, p) > 1)
    return PeakPart(place, used, rows, tuple(readers), waits)


def _windows(graph: Graph, position: int) -> int:
    """Return how many rows of its input a node needs for one row of output."""
    node = graph.nodes[position]
    return max((s.taps for s in op_named(node.op).region(Call(graph, node)) or ()), default=1)
