"""Turn a run of nodes into a streamed segment: who computes which rows when, and what that needs.

Rows are computed on demand: before a node computes a band of rows, the nodes before it compute
just the rows that this takes and that are not there yet. A tensor that only the segment reads
keeps the rows still needed in a ring. Nothing is computed twice. What is written may lie over rows
of the input that no one reads again, and the end of an output over rings that are no longer used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, RowSource, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan.layout import ALIGNMENT
from tinydeploy.plan.select import Selection

Rows = NDArray[np.int64]
EVEN: tuple[Pace, ...] = ("even",)


@dataclass(frozen=True, slots=True)
class Stream:
    """Hold the schedule of a segment: rows done after each step, rings, who may share bytes.

    A step calls each of the columns at most once, in order: first the `feeds` (inputs of the
    network that arrive row by row), then the `nodes`. With `pairs` {(below, above): distance}, the
    tensor `above` may begin that many bytes above the start of `below`, or more; fewer than 0 when
    `below` may even begin inside `above`.
    """

    nodes: tuple[int, ...]
    feeds: tuple[int, ...]
    calls: NDArray[np.bool_]  # [steps, feeds and nodes]
    rings: dict[int, int]  # tensor -> rows held
    pairs: dict[tuple[int, int], int]
    paces: tuple[Pace, ...] = ()  # of the nodes; all are "even" where there are none


@dataclass(frozen=True, slots=True)
class _Column:
    """Hold what one node or feed of a segment does: `height` rows, `band` of them per call.

    `first` has, per source and per number of rows done, the lowest row it still needs; `reach`, how
    many rows of the source that many take.
    """

    tensor: int
    height: int
    band: int
    sources: tuple[tuple[int, RowSource], ...] = ()  # tensor read, and how
    first: tuple[Rows, ...] = ()
    reach: tuple[list[int], ...] = ()
    reduces: bool = False


def reduces(selection: Selection, position: int) -> bool:
    """Tell whether a node is called once per row of its input and writes after the last."""
    kernel = selection.kernels[position]
    return kernel is not None and kernel.accumulators is not None


class Scheduler:
    """Make streamed segments of a network; what every segment needs is found out once.

    `rows` holds the kernels that nodes have when they are streamed, by pace (plan.rows.paced). With
    `rereads` an input that arrives row by row may do so in several segments.
    """

    def __init__(self, graph: Graph, rows: Mapping[Pace, Selection], rereads: bool = False) -> None:
        self.graph, self.rows, self.rereads = graph, rows, rereads
        self.selection = rows["even"]
        self.readers: dict[int, list[int]] = {}
        self.columns: dict[tuple[int, Pace], _Column] = {}
        self.pitches: dict[int, int] = {}
        for p, node in enumerate(graph.nodes):
            for i in node.inputs:
                if i is not None:
                    self.readers.setdefault(i, []).append(p)
            for pace, selection in rows.items():
                if selection.kernels[p] is not None:
                    self.columns[p, pace] = _column(graph, selection, p)

    def stream(
        self, nodes: Sequence[int], feeds: Sequence[int] = (), paces: Sequence[Pace] = ()
    ) -> Stream:
        """Return the schedule of consecutive nodes, all streamable, as one segment.

        `feeds` are inputs of the network that arrive row by row, `paces` those of the nodes.
        """
        if all(pace == "even" for pace in paces):
            paces = ()
        graph = self.graph
        columns = [_Column(t, graph.tensors[t].rows, 1) for t in feeds]
        each = paces or EVEN * len(nodes)
        columns += [self.columns[p, pace] for p, pace in zip(nodes, each, strict=True)]
        calls, done = _on_demand(columns)
        before = np.vstack([np.zeros((1, len(columns)), np.int64), done[:-1]])
        inside = set(nodes)
        inner = {
            c.tensor
            for c in columns
            if c.tensor in feeds
            or (
                c.tensor not in graph.outputs
                and c.tensor in self.readers
                and inside.issuperset(self.readers[c.tensor])
            )
        }
        rings = _rings(columns, done, before, inner)
        pairs = self._under_input(nodes, columns, done, before, rings)
        pairs |= self._over_output(columns, calls, done, rings)
        # Rings that another segment uses again, and columns of a larger tensor, stay by themselves.
        alone = {c.tensor for c in columns if self.selection.layout(c.tensor).pitch}
        alone |= set(feeds) if self.rereads else set()
        pairs = {(y, x): d for (y, x), d in pairs.items() if not {y, x} & alone}
        return Stream(tuple(nodes), tuple(feeds), calls, rings, pairs, tuple(paces))

    def _row_bytes(self, tensor: int) -> int:
        if tensor not in self.pitches:
            layout = self.selection.layout(tensor)
            self.pitches[tensor] = layout.row_bytes(self.graph.tensors[tensor])
        return self.pitches[tensor]

    def _under_input(
        self,
        nodes: Sequence[int],
        columns: Sequence[_Column],
        done: Rows,
        before: Rows,
        rings: Mapping[int, int],
    ) -> dict[tuple[int, int], int]:
        """Return how far each tensor made here may reach into the largest input that dies here.

        Row k of a ring or an output that begins at 0 ends at (k + 1) rows of it; when it is first
        written, the input's rows below the lowest one still needed are free.
        """
        graph, inside = self.graph, set(nodes)
        own = {c.tensor for c in columns}
        inputs = [
            t
            for t in dict.fromkeys(t for c in columns for t, _ in c.sources)
            if t not in own
            and t not in graph.outputs
            and t not in self.selection.outside
            and inside.issuperset(self.readers[t])
        ]
        if not inputs:
            return {}
        x = max(inputs, key=lambda t: graph.tensors[t].rows * self._row_bytes(t))
        height, row_in = graph.tensors[x].rows, self._row_bytes(x)
        users = [
            (k, source, first)
            for k, column in enumerate(columns)
            for (t, source), first in zip(column.sources, column.first, strict=True)
            if t == x
        ]
        pairs = {}
        for w, writer in enumerate(columns):
            if writer.reduces:
                continue
            written = np.minimum(done[:, w], rings.get(writer.tensor, writer.height))
            needed = written * self._row_bytes(writer.tensor)
            distance = np.full(len(done), -height * row_in)
            for k, source, first in users:
                if k == w and self._in_place(nodes, columns, k, source):
                    # Exactly over what it reads, or below, but never ahead of it.
                    distance = np.maximum(distance, 0)
                    continue
                # Who comes before the writer has read its rows of this step, who comes later,
                # or is the writer itself, has not.
                live = first[(done if k < w else before)[:, k]]
                distance = np.maximum(distance, needed - live * row_in)
            worst = int(np.max(distance[done[:, w] > before[:, w]]))
            pairs[writer.tensor, x] = -(-worst // ALIGNMENT) * ALIGNMENT
        return pairs

    def _over_output(
        self,
        columns: Sequence[_Column],
        calls: NDArray[np.bool_],
        done: Rows,
        rings: Mapping[int, int],
    ) -> dict[tuple[int, int], int]:
        """Return where above an output's start each ring may begin: what is written there later
        finds the ring's last reader done.
        """
        pairs = {}
        outputs = [(w, c) for w, c in enumerate(columns) if c.tensor not in rings and not c.reduces]
        final = len(calls) - 1 - np.argmax(calls[::-1], axis=0)
        last: dict[int, int] = {}
        for k, user in enumerate(columns):
            for t in (user.tensor, *(t for t, _ in user.sources)):
                if t in rings:
                    last[t] = max(last.get(t, 0), int(final[k]))
        for w, writer in outputs:
            for ring, step in last.items():
                early = int(done[step, w]) * self._row_bytes(writer.tensor)
                pairs[writer.tensor, ring] = -(-early // ALIGNMENT) * ALIGNMENT
        return pairs

    def _in_place(
        self, nodes: Sequence[int], columns: Sequence[_Column], k: int, source: RowSource
    ) -> bool:
        """Tell whether a node may write its row exactly over the row it reads."""
        call = Call(self.graph, self.graph.nodes[nodes[k - (len(columns) - len(nodes))]])
        read, written = call.node.inputs[source.input], call.node.outputs[0]
        assert read is not None
        same = self.selection.layout(read) == self.selection.layout(written)
        same = same and self._row_bytes(read) == self._row_bytes(written)
        return same and op_named(call.node.op).in_place(call, source.input)


def stacked(x: int, under: Sequence[tuple[int, int]], over: Sequence[tuple[int, int]] = ()) -> int:
    """Return the least bytes that hold a buffer of x bytes and others that may share with it.

    `under` and `over` are (bytes, distance) of buffers that may reach into its low end, or stand
    on its high end before it is full (only one of them is used). Where each may reach is a
    deadline: the earliest deadline first is the best order.
    """
    base = top = 0
    if under:
        order = sorted(under, key=lambda u: u[0] - u[1])
        total, base = 0, 10**9
        for size, distance in order:
            total += size
            base = min(base, size - distance - total)
        base = min(base, 0)
        top = base + total
    else:
        for size, distance in sorted(over, key=lambda o: o[1]):
            top = max(top, distance) + size
    return max(x, top) - base


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
    first = tuple(_first_needed(s, height, r) for (_, s), r in zip(sources, rows, strict=True))
    reach = tuple(_last_needed(s, height, r) for (_, s), r in zip(sources, rows, strict=True))
    return _Column(
        node.outputs[0], height, kernel.band, tuple(sources), first, reach,
        reduces(selection, position),
    )  # fmt: skip


def _last_needed(source: RowSource, rows: int, height: int) -> list[int]:
    """Return how many rows of a source of `height` rows a reader's first 0, 1 ... `rows` take."""
    if source.table is not None:
        last = np.maximum.accumulate(np.array(source.table, np.int64))
    else:
        last = np.arange(rows, dtype=np.int64) * source.stride + source.offset
        last = last + (source.taps - 1) * source.dilation
    return [0, *np.clip(last + 1, 0, height).tolist()]


def _first_needed(source: RowSource, rows: int, height: int) -> Rows:
    """Return, per number of its `rows` that a reader has done, the lowest row it still needs."""
    if source.table is not None:
        later = np.minimum.accumulate(np.array(source.table, np.int64)[::-1])[::-1]
    else:
        later = np.arange(rows, dtype=np.int64) * source.stride + source.offset
    return np.append(np.clip(later, 0, height), height)


def _on_demand(columns: Sequence[_Column]) -> tuple[NDArray[np.bool_], Rows]:
    """Return which column is called in which step, and the rows each has done after it."""
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
    return _in_steps(columns, order)


def _in_steps(columns: Sequence[_Column], order: Sequence[int]) -> tuple[NDArray[np.bool_], Rows]:
    """Cut a sequence of calls into steps that call each column at most once, in order."""
    steps: list[int] = []
    step = -1
    for before, k in zip([len(columns), *order], order, strict=False):
        step += k <= before
        steps.append(step)
    calls = np.zeros((step + 1, len(columns)), np.bool_)
    calls[steps, list(order)] = True
    bands = np.array([c.band for c in columns])
    heights = np.array([c.height for c in columns])
    return calls, np.minimum(np.cumsum(calls, axis=0) * bands, heights)


def _rings(columns: Sequence[_Column], done: Rows, before: Rows, inner: Set[int]) -> dict[int, int]:
    """Return how many rows each ring must hold: newest done in a step minus oldest still needed."""
    oldest: dict[int, Rows] = {}
    for k, column in enumerate(columns):
        for (t, _), first in zip(column.sources, column.first, strict=True):
            if t in inner:
                live = first[before[:, k]]
                oldest[t] = np.minimum(oldest[t], live) if t in oldest else live
    rings = {}
    for k, column in enumerate(columns):
        t = column.tensor
        if t in inner:
            held = int(np.max(done[:, k] - oldest[t])) if t in oldest else 0
            rings[t] = max(1, min(held, column.height))
    return rings
