"""Turn a MemoryPlan into what people ask of it: what lies where and when, and what is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.plan.layout import MemoryPlan, Rows, Segment

Kind = Literal["input", "output", "tensor", "ring", "scratch", "padding"]


@dataclass(frozen=True, slots=True)
class Place:
    """Describe what the arena holds for one buffer or tensor: where (bytes), when (steps, both
    included).

    kind: a whole tensor ("tensor", or "input" and "output" of the network), a "ring": the rows of
    a tensor that are still needed, each at a place of its own; a kernel's "scratch" memory, or a
    row of "padding".
    offset, top: the lowest byte, and the end of the highest; bytes: in use at most at a time.
    rows, rows_held: of the tensor, and how many of them there are at most at a time.
    memory, inside: the memory, where there are several, and the offset in its own arena.
    pieces: (start, end, first call, last call), all [n, 4]; of a ring, one for each row's life.
    """

    kind: Kind
    name: str
    tensors: tuple[int, ...]
    offset: int
    top: int
    bytes: int
    first: int
    last: int
    rows: int = 0
    rows_held: int = 0
    memory: str = ""
    inside: int = 0
    pieces: Rows = field(default_factory=lambda: np.zeros((0, 4), np.int64), compare=False)


@dataclass(frozen=True, slots=True)
class SegmentView:
    """Describe what the arena holds while one segment runs.

    alive_bytes: in use at most at one of its calls; scratch_bytes: kernels' own memory, likewise.
    """

    segment: Segment
    alive_bytes: int
    scratch_bytes: int
    places: tuple[Place, ...]

    def of_kind(self, kind: Kind) -> list[Place]:
        return [p for p in self.places if p.kind == kind]


def places(graph: Graph, plan: MemoryPlan) -> tuple[Place, ...]:
    """Return what lies in the arena: the plan's buffers in its order, then what is held in rows.

    Rows may take over the place of a row of another tensor at the call that reads that one last.
    """
    found = []
    for buffer, item, offset in zip(plan.buffers, plan.items.items, plan.offsets, strict=False):
        kind, rows = _kind(graph, buffer.tensors, buffer.label)
        name = ", ".join(graph.tensors[t].name for t in buffer.tensors) or buffer.label
        found.append(
            Place(kind, name, buffer.tensors, offset, offset + buffer.bytes, buffer.bytes,
                  buffer.first, buffer.last, rows, rows, *plan.within(offset),
                  item.pieces + np.array([offset, offset, 0, 0]))
        )  # fmt: skip
    for t, lives in plan.items.lives.items():
        size = plan.selection.layout(t).row_bytes(graph.tensors[t])
        at = np.array(plan.row_offsets(t), np.int64)
        low, held = int(at.min()), plan.items.held[t]
        touched = {p for p, n in enumerate(graph.nodes) if t in (*n.inputs, *n.outputs)}
        spans = [(s.nodes[0], s.nodes[-1]) for s in plan.segments if touched.intersection(s.nodes)]
        start = at[lives[:, 0]]
        found.append(
            Place("ring", graph.tensors[t].name, (t,), low, int(at.max()) + size, size * held,
                  spans[0][0], spans[-1][1], len(at), held, *plan.within(low),
                  np.stack([start, start + size, lives[:, 1], lives[:, 2]], axis=1))
        )  # fmt: skip
    return tuple(found)


def _kind(graph: Graph, tensors: Sequence[int], label: str) -> tuple[Kind, int]:
    """Return what a buffer is, and the rows of its tensor."""
    if not tensors:
        return ("padding" if label.startswith("padding") else "scratch"), 0
    rows = graph.tensors[tensors[0]].rows
    if any(t in graph.inputs for t in tensors):
        return "input", rows
    return ("output" if any(t in graph.outputs for t in tensors) else "tensor"), rows


def in_use(found: Sequence[Place], call: int) -> list[int]:
    """Return how many bytes of each place are in use at a call.

    A byte that one row hands over to another at this call counts for the later place alone.
    """
    owner = np.full(max((p.top for p in found), default=0), -1)
    for k, place in enumerate(found):
        now = (place.pieces[:, 2] <= call) & (call <= place.pieces[:, 3])
        for start, end in place.pieces[now, :2].tolist():
            owner[start:end] = k
    return [int(n) for n in np.bincount(owner + 1, minlength=len(found) + 1)[1:]]


def segment_views(graph: Graph, plan: MemoryPlan) -> tuple[SegmentView, ...]:
    """Return what lies in the arena during each segment, in the order they run."""
    found = places(graph, plan)
    views = []
    for segment in plan.segments:
        first, last = segment.nodes[0], segment.nodes[-1]
        alive = tuple(p for p in found if p.first <= last and first <= p.last)
        own = [p.pieces for p in alive if p.kind == "scratch"]
        views.append(
            SegmentView(segment, plan.items.most(first), _most(own, *plan.items.calls[first]),
                        alive)
        )  # fmt: skip
    return tuple(views)


def _most(pieces: Sequence[Rows], first: int, end: int) -> int:
    """Return the most bytes of pieces in use at one of the calls from `first` to before `end`."""
    change = np.zeros(end - first + 1, np.int64)
    for start, stop, born, dead in np.concatenate(pieces).tolist() if pieces else ():
        if born < end and dead >= first:
            change[max(born, first) - first] += stop - start
            change[min(dead + 1, end) - first] -= stop - start
    return int(np.cumsum(change).max())


def peak(graph: Graph, plan: MemoryPlan) -> SegmentView:
    """Return the segment during which most bytes are alive: the first, if several are."""
    return max(segment_views(graph, plan), key=lambda view: view.alive_bytes)


def peak_call(plan: MemoryPlan, view: SegmentView) -> int:
    """Return the first call of a segment at which as many bytes are in use as ever in it."""
    first, end = plan.items.calls[view.segment.nodes[0]]
    return first + int(plan.items.alive[first:end].argmax())
