"""Turn a MemoryPlan into what people ask of it: what lies where, what is shared, what is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinydeploy.ir import Graph
from tinydeploy.plan.layout import MemoryPlan, Segment

Kind = Literal["input", "output", "tensor", "ring", "scratch", "padding"]


@dataclass(frozen=True, slots=True)
class Place:
    """Describe one buffer of the arena: what it holds, where (bytes) and when (steps, inclusive).

    kind: a whole tensor ("tensor", or "input" and "output" of the network), a "ring": the rows of
    a tensor that are still needed, each at a place of its own; a kernel's "scratch" memory, or a
    row of "padding".
    rows, rows_held: of the tensor, and how many of them there are at most at a time; top: the end
    of the highest one.
    memory, inside: the memory, where there are several, and the offset in its own arena.
    """

    kind: Kind
    name: str
    tensors: tuple[int, ...]
    offset: int
    bytes: int
    first: int
    last: int
    rows: int = 0
    rows_held: int = 0
    memory: str = ""
    inside: int = 0
    top: int = 0

    @property
    def end(self) -> int:
        return max(self.top, self.offset + self.bytes)


@dataclass(frozen=True, slots=True)
class Shared:
    """Name two buffers that are alive together and share bytes: the output flows into the input."""

    lower: Place
    upper: Place
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SegmentView:
    """Describe what the arena holds while one segment runs; `alive_bytes` count once if shared."""

    segment: Segment
    alive_bytes: int
    places: tuple[Place, ...]
    shared: tuple[Shared, ...]

    def of_kind(self, kind: Kind) -> list[Place]:
        return [p for p in self.places if p.kind == kind]


def places(graph: Graph, plan: MemoryPlan) -> tuple[Place, ...]:
    """Return every buffer of a plan, in the plan's order."""
    found = []
    for buffer, offset in zip(plan.buffers, plan.offsets, strict=False):
        kind, rows, held = _kind(graph, plan, buffer.tensors, buffer.label)
        name = ", ".join(graph.tensors[t].name for t in buffer.tensors) or buffer.label
        found.append(
            Place(kind, name, buffer.tensors, offset, buffer.bytes, buffer.first, buffer.last,
                  rows, held, *plan.within(offset))
        )  # fmt: skip
    for t in plan.items.rows:
        tensor, size = graph.tensors[t], plan.selection.layout(t).row_bytes(graph.tensors[t])
        low = min(plan.row_offsets(t))
        touched = [p for p, n in enumerate(graph.nodes) if t in (*n.inputs, *n.outputs)]
        spans = [(s.nodes[0], s.nodes[-1]) for s in plan.segments if {*touched} & {*s.nodes}]
        found.append(
            Place("ring", tensor.name, (t,), low, size * plan.items.held[t], spans[0][0],
                  spans[-1][1], tensor.rows, plan.items.held[t], *plan.within(low),
                  max(plan.row_offsets(t)) + size)
        )  # fmt: skip
    return tuple(found)


def _kind(
    graph: Graph, plan: MemoryPlan, tensors: Sequence[int], label: str
) -> tuple[Kind, int, int]:
    """Return what a buffer is, and the rows of its tensor and of the buffer."""
    if not tensors:
        return ("padding" if label.startswith("padding") else "scratch"), 0, 0
    rows = graph.tensors[tensors[0]].rows
    if any(t in graph.inputs for t in tensors):
        return "input", rows, rows
    return ("output" if any(t in graph.outputs for t in tensors) else "tensor"), rows, rows


def shared(found: Sequence[Place]) -> tuple[Shared, ...]:
    """Return the pairs of buffers that are alive at one step and overlap in the arena."""
    pairs = []
    for k, a in enumerate(found):
        for b in found[:k]:
            lower, upper = sorted((a, b), key=lambda p: (p.offset, p.end))
            first, last = max(a.first, b.first), min(a.last, b.last)
            size = min(lower.end, upper.end) - upper.offset
            if first <= last and size > 0:
                pairs.append(Shared(lower, upper, upper.offset, size, first, last))
    return tuple(pairs)


def segment_views(graph: Graph, plan: MemoryPlan) -> tuple[SegmentView, ...]:
    """Return what lies in the arena during each segment, in the order they run."""
    found = places(graph, plan)
    pairs = shared(found)
    views = []
    for segment in plan.segments:
        first, last = segment.nodes[0], segment.nodes[-1]
        views.append(
            SegmentView(
                segment,
                max(plan.occupied(step) for step in range(first, last + 1)),
                tuple(p for p in found if p.first <= last and first <= p.last),
                tuple(s for s in pairs if s.first <= last and first <= s.last),
            )
        )
    return tuple(views)


def peak(graph: Graph, plan: MemoryPlan) -> SegmentView:
    """Return the segment during which most bytes are alive: the first, if several are."""
    return max(segment_views(graph, plan), key=lambda view: view.alive_bytes)
