"""Turn a run of nodes into a streamed segment: who computes which rows when, for how long.

Rows are computed on demand: before a node computes a band of rows, the nodes before it compute
just the rows that this takes and that are not there yet. Nothing is computed twice. Each row of a
tensor that only the segment reads lives from the call that writes it to the last that reads it, and
has a place of its own for that time (plan.items), as have the rows of what the segment reads and
leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, RowSource, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan.layout import Rows
from tinydeploy.plan.liveness import homes
from tinydeploy.plan.select import Selection

EVEN: tuple[Pace, ...] = ("even",)
NEVER = -1


@dataclass(frozen=True, slots=True, eq=False)
class Life:
    """Hold when each row of a tensor is written and last read, in calls of a segment.

    `written` is None for what was there before; `read` is NEVER for rows that no call reads.
    """

    written: Rows | None
    read: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Hold the schedule of a segment: which of `feeds` (inputs of the network that arrive row by
    row) and then `nodes` is called next, each for its next band of rows.

    inner: tensors that only this segment knows, with the rows of them that lie together.
    """

    nodes: tuple[int, ...]
    feeds: tuple[int, ...]
    calls: NDArray[np.int64]
    lives: dict[int, Life]
    inner: dict[int, int]
    paces: tuple[Pace, ...] = ()  # of the nodes; all are "even" where there are none

    @property
    def each(self) -> tuple[Pace, ...]:
        """Return the pace of each node."""
        return self.paces or EVEN * len(self.nodes)

    def alive(self, tensor: int) -> Rows:
        """Return how many rows of an inner tensor are needed at each call."""
        life, end = self.lives[tensor], len(self.calls) + 1
        assert life.written is not None
        gone = np.maximum(life.read, life.written) + 1
        change = np.bincount(life.written, minlength=end) - np.bincount(gone, minlength=end)
        return np.cumsum(change)[:-1]

    def held(self, tensor: int) -> int:
        """Return the most rows of an inner tensor that are needed at a time."""
        return int(self.alive(tensor).max())


@dataclass(frozen=True, slots=True)
class _Column:
    """Hold what one node or feed of a segment does: `height` rows, `band` of them per call.

    `reach` has, per source, how many rows of it so many take; `last`, which of the calls is the
    last to read each row of it, and `written`, which one writes each row of `tensor`. `together`
    rows lie together, and those it reads too.
    """

    tensor: int
    height: int
    band: int
    sources: tuple[tuple[int, RowSource], ...] = ()  # tensor read, and how
    last: tuple[Rows, ...] = ()
    reach: tuple[list[int], ...] = ()
    written: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    together: int = 1


def reduces(selection: Selection, position: int) -> bool:
    """Tell whether a node is called once per row of its input and writes after the last."""
    kernel = selection.kernels[position]
    return kernel is not None and kernel.accumulators is not None


class Scheduler:
    """Make streamed segments of a network; what every segment needs is found out once.

    `rows` holds the kernels that nodes have when they are streamed, by pace (plan.rows.paced).
    """

    def __init__(self, graph: Graph, rows: Mapping[Pace, Selection]) -> None:
        self.graph, self.rows = graph, rows
        self.selection = rows["even"]
        self.readers: dict[int, list[int]] = {}
        self.columns: dict[tuple[int, Pace], _Column] = {}
        self.pitches: dict[int, int] = {}
        parts = homes(graph, self.selection.kernels)
        self.parts = {*parts, *(whole for whole, _ in parts.values())}
        for p, node in enumerate(graph.nodes):
            for i in node.inputs:
                if i is not None:
                    self.readers.setdefault(i, []).append(p)
            for pace, selection in rows.items():
                if selection.kernels[p] is not None:
                    self.columns[p, pace] = _column(graph, selection, p)
        self.pairs = [_in_place(graph, self.selection, p) for p in range(len(graph.nodes))]

    def shape(self, nodes: Sequence[int], paces: Sequence[Pace]) -> tuple[tuple[int, int], ...]:
        """Return what a schedule depends on beside its nodes: rows per call, and those together."""
        columns = (self.columns[c] for c in zip(nodes, paces, strict=True))
        return tuple((c.band, c.together) for c in columns)

    def stream(
        self, nodes: Sequence[int], feeds: Sequence[int] = (), paces: Sequence[Pace] = ()
    ) -> Stream:
        """Return the schedule of consecutive nodes, all streamable, as one segment.

        `feeds` are inputs of the network that arrive row by row, `paces` those of the nodes.
        """
        graph = self.graph
        if all(pace == "even" for pace in paces):
            paces = ()
        columns = [_feed(t, graph.tensors[t].rows) for t in feeds]
        each = paces or EVEN * len(nodes)
        columns += [self.columns[p, pace] for p, pace in zip(nodes, each, strict=True)]
        calls = np.array(_on_demand(columns), np.int64)
        inside = set(nodes)
        inner = {
            c.tensor: c.together
            for c in columns
            if c.tensor in feeds
            or (
                c.tensor not in graph.outputs
                and c.tensor not in self.parts
                and c.tensor in self.readers
                and inside.issuperset(self.readers[c.tensor])
            )
        }
        for column in columns:
            for t, _ in column.sources:
                if t in inner:
                    inner[t] = lcm(inner[t], column.together)
        return Stream(
            tuple(nodes), tuple(feeds), calls, self._lives(columns, calls), inner, tuple(paces)
        )

    def _lives(self, columns: Sequence[_Column], calls: NDArray[np.int64]) -> dict[int, Life]:
        """Return when the rows of each tensor that the columns touch are written and last read."""
        order = np.argsort(calls, kind="stable")
        ends = np.cumsum(np.bincount(calls, minlength=len(columns)))
        lives: dict[int, Life] = {}
        for k, column in enumerate(columns):
            when = order[ends[k - 1] if k else 0 : ends[k]]
            for (t, _), last in zip(column.sources, column.last, strict=True):
                read, before = when[last], lives.get(t)
                if before is not None:
                    lives[t] = Life(before.written, np.maximum(before.read, read))
                else:
                    lives[t] = Life(None, read)
            written = when[column.written]
            lives[column.tensor] = Life(written, np.full(len(written), NEVER))
        return lives

    def row_bytes(self, tensor: int) -> int:
        """Return the bytes from one row of a tensor to the next."""
        if tensor not in self.pitches:
            layout = self.selection.layout(tensor)
            self.pitches[tensor] = layout.row_bytes(self.graph.tensors[tensor])
        return self.pitches[tensor]

    def in_place(self, s: Stream) -> list[tuple[int, int]]:
        """Return (output, input) of nodes that may write a row exactly over the one they read."""
        return [pair for p in s.nodes for pair in self.pairs[p]]


def _in_place(graph: Graph, selection: Selection, position: int) -> list[tuple[int, int]]:
    """Return (output, input) where a node may write a row exactly over the one it reads."""
    call, layout = Call(graph, graph.nodes[position]), selection.layout
    op, written = op_named(call.node.op), call.node.outputs[0]
    found = []
    for k in () if op.view or reduces(selection, position) else op.inputs(call):
        read = call.node.inputs[k]
        if read is None or graph.tensors[read].constant:
            continue
        old, new = graph.tensors[read], call.output
        same = layout(read) == layout(written) and not layout(read).pitch
        if same and (old.rows, old.row_bytes) == (new.rows, new.row_bytes):
            found += [(written, read)] * op.in_place(call, k)
    return found


def _column(graph: Graph, selection: Selection, position: int) -> _Column:
    node, kernel = graph.nodes[position], selection.kernels[position]
    assert kernel is not None
    call = Call(graph, node)
    if reduces(selection, position):
        region: tuple[RowSource, ...] = (RowSource(),)
        height = call.input().rows
    else:
        region, height = op_named(node.op).region(call) or (), call.output.rows
    sources = []
    for source in region:
        index = node.inputs[source.input]
        if index is not None and not graph.tensors[index].constant:
            sources.append((index, source))
    rows = [graph.tensors[t].rows for t, _ in sources]
    pace = selection.pace(position)
    together = pace if isinstance(pace, int) else 1
    band = kernel.band * together
    last = tuple(_last_call(s, height, r, band) for (_, s), r in zip(sources, rows, strict=True))
    reach = tuple(_last_needed(s, height, r) for (_, s), r in zip(sources, rows, strict=True))
    written = np.arange(call.output.rows) // band
    if reduces(selection, position):
        written = np.full(call.output.rows, -1)
    return _Column(node.outputs[0], height, band, tuple(sources), last, reach, written, together)


def _feed(tensor: int, rows: int) -> _Column:
    return _Column(tensor, rows, 1, written=np.arange(rows))


def _last_needed(source: RowSource, rows: int, height: int) -> list[int]:
    """Return how many rows of a source of `height` rows a reader's first 0, 1 ... `rows` take."""
    if source.table is not None:
        last = np.maximum.accumulate(np.array(source.table, np.int64))
    else:
        last = np.arange(rows, dtype=np.int64) * source.stride + source.offset
        last = last + (source.taps - 1) * source.dilation
    return [0, *np.clip(last + 1, 0, height).tolist()]


def _last_call(source: RowSource, rows: int, height: int, band: int) -> Rows:
    """Return which call is the last to read each of `height` rows of a source.

    The reader computes `band` of its `rows` at a call, the fewer the last time.
    """
    if source.table is not None:
        later = np.minimum.accumulate(np.array(source.table, np.int64)[::-1])[::-1]
    else:
        later = np.arange(rows, dtype=np.int64) * source.stride + source.offset
    needed = np.append(np.clip(later, 0, height), height)  # the lowest row, with so many rows done
    done = np.minimum(np.arange(1, -(-rows // band) + 1) * band, rows)
    return np.searchsorted(needed[done], np.arange(height), side="right")


def _on_demand(columns: Sequence[_Column]) -> list[int]:
    """Return which column is called next, until all are done."""
    producers = {c.tensor: k for k, c in enumerate(columns)}
    wanted = [
        [
            (producers[t], reach)
            for (t, _), reach in zip(c.sources, c.reach, strict=True)
            if t in producers
        ]
        for c in columns
    ]
    bands, heights = [c.band for c in columns], [c.height for c in columns]
    done = [0] * len(columns)
    order: list[int] = []

    def advance(k: int) -> None:
        goal = min(done[k] + bands[k], heights[k])
        for maker, reach in wanted[k]:
            rows = reach[goal]
            while done[maker] < rows:
                advance(maker)
        order.append(k)
        done[k] = goal

    final = len(columns) - 1
    read = {t for c in columns for t, _ in c.sources}
    free = [k for k, c in enumerate(columns[:-1]) if c.tensor not in read]
    while done[final] < columns[final].height:
        advance(final)
        for k in free:  # nobody here reads it: it goes at the pace of the last one
            while done[k] * columns[final].height < columns[k].height * done[final]:
                advance(k)
    for k, column in enumerate(columns):
        while done[k] < column.height:
            advance(k)
    return order
