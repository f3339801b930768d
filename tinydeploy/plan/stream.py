"""Turn a run of nodes into a streamed segment: who computes which rows when, and what that needs.

A segment is executed in steps. In each step its last node gets one band of rows nearer to its
end, and every node before it computes, in order, just the rows that this takes. A tensor that
only the segment reads keeps the rows still needed in a ring. Nothing is computed twice. The output
may lie over the input as long as no row is overwritten that will still be read (`distance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, RowSource, op_named
from tinydeploy.plan.select import Selection

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Let `output` lie under `input` if the input begins at least `distance` bytes above it."""

    input: int
    output: int
    distance: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Hold the schedule of a segment: rows done per node after each step, rings, one overlap."""

    nodes: tuple[int, ...]
    done: tuple[Rows, ...]  # per node, rows after each step
    rings: dict[int, int]  # tensor -> rows held
    overlap: Overlap | None

    @property
    def steps(self) -> int:
        return len(self.done[0])

    def calls(self, graph: Graph, selection: Selection) -> NDArray[np.int64]:
        """Return how often each node is called in each step, [steps, nodes]."""
        columns = []
        for position, rows in zip(self.nodes, self.done, strict=True):
            kernel = selection.kernels[position]
            assert kernel is not None
            bands = -(-rows // kernel.band)
            columns.append(np.diff(bands, prepend=0))
        return np.stack(columns, axis=1)


def streamable(graph: Graph, selection: Selection, position: int, profile: IntegerProfile) -> bool:
    """Tell whether a node can compute its output row by row from rows of images."""
    node, kernel = graph.nodes[position], selection.kernels[position]
    if kernel is None or not kernel.by_rows:
        return False
    by_rows = replace(selection, streamed=selection.streamed | {position})
    site = by_rows.site(graph, position, profile)
    if kernel.whole(site) or not kernel.accepts(site):
        return False
    op, call = op_named(node.op), Call(graph, node)
    region = None if op.view else op.region(call)
    if region is None or len(call.output.shape) != 4 or op.rows(call) != call.output.rows:
        return False
    inputs = [call.input(s.input) for s in region]
    return all(len(t.shape) == 4 or t.constant for t in inputs)


def stream(graph: Graph, selection: Selection, nodes: Sequence[int]) -> Stream:
    """Return the schedule of consecutive nodes, all streamable, as one segment."""
    readers = _readers(graph, nodes)
    produced = {graph.nodes[p].outputs[0]: p for p in nodes}
    inner = {
        t
        for t in produced
        if t not in graph.outputs and readers[t] and _all_inside(graph, t, set(nodes))
    }
    done = _demand(graph, selection, nodes, produced, readers)
    rings = {t: _ring_rows(graph, t, produced[t], readers[t], done) for t in inner}
    return Stream(
        tuple(nodes),
        tuple(done[p] for p in nodes),
        rings,
        _overlap(graph, selection, nodes, inner, done),
    )


def _all_inside(graph: Graph, tensor: int, inside: set[int]) -> bool:
    return all(p in inside for p, n in enumerate(graph.nodes) if tensor in n.inputs)


def _readers(graph: Graph, nodes: Sequence[int]) -> dict[int, list[tuple[int, RowSource]]]:
    """Return which node of the segment reads which tensor, and how."""
    found: dict[int, list[tuple[int, RowSource]]] = {}
    for p in nodes:
        node = graph.nodes[p]
        found.setdefault(node.outputs[0], [])
        for source in op_named(node.op).region(Call(graph, node)) or ():
            index = node.inputs[source.input]
            assert index is not None
            found.setdefault(index, []).append((p, source))
    return found


def _height(graph: Graph, position: int) -> int:
    return graph.tensors[graph.nodes[position].outputs[0]].rows


def _first_needed(graph: Graph, position: int, source: RowSource, done: Rows) -> Rows:
    """Return the lowest row that a reader which has `done` rows still needs; the height if none."""
    node = graph.nodes[position]
    height = graph.tensor(node.inputs[source.input]).rows
    own = _height(graph, position)
    if source.table is not None:
        table = np.append(np.array(source.table, np.int64), height)
        rows = table[np.minimum(done, own)]
    else:
        rows = done * source.stride + source.offset
    return np.where(done >= own, height, np.clip(rows, 0, height))


def _last_needed(graph: Graph, position: int, source: RowSource, done: Rows) -> Rows:
    """Return how many rows of a source must exist before a reader has `done` rows."""
    height = graph.tensor(graph.nodes[position].inputs[source.input]).rows
    if source.table is not None:
        rows = np.array(source.table, np.int64)[np.maximum(done, 1) - 1] + 1
    else:
        last = (done - 1) * source.stride + source.offset + (source.taps - 1) * source.dilation
        rows = last + 1
    return np.where(done > 0, np.clip(rows, 0, height), 0)


def _demand(
    graph: Graph,
    selection: Selection,
    nodes: Sequence[int],
    produced: dict[int, int],
    readers: dict[int, list[tuple[int, RowSource]]],
) -> dict[int, Rows]:
    """Return, per node, how many rows are done after each step, from the last node backwards."""
    final = nodes[-1]
    kernel = selection.kernels[final]
    assert kernel is not None
    steps = -(-_height(graph, final) // kernel.band)
    step = np.arange(1, steps + 1)
    done: dict[int, Rows] = {}
    for p in reversed(nodes):
        own, height = selection.kernels[p], _height(graph, p)
        assert own is not None
        users = readers[graph.nodes[p].outputs[0]]
        # A node that nobody in the segment reads goes at the pace of the last one.
        need = -(-height * step // steps) if not users else np.zeros(steps, np.int64)
        for user, source in users:
            need = np.maximum(need, _last_needed(graph, user, source, done[user]))
        need[-1] = height
        done[p] = np.minimum(-(-need // own.band) * own.band, height)
    return done


def _before(rows: Rows) -> Rows:
    """Return the rows done before each step."""
    return np.concatenate([np.zeros(1, np.int64), rows[:-1]])


def _ring_rows(
    graph: Graph,
    tensor: int,
    producer: int,
    users: list[tuple[int, RowSource]],
    done: dict[int, Rows],
) -> int:
    """Return how many rows a ring must hold: newest done in a step minus oldest still needed."""
    oldest = np.min(
        [_first_needed(graph, user, source, _before(done[user])) for user, source in users], axis=0
    )
    held = int(np.max(done[producer] - oldest))
    return max(1, min(held, graph.tensors[tensor].rows))


def _overlap(
    graph: Graph,
    selection: Selection,
    nodes: Sequence[int],
    inner: set[int],
    done: dict[int, Rows],
) -> Overlap | None:
    """Return how far the largest output may reach into the largest input that dies here."""
    inside = set(nodes)
    outputs = [t for p in nodes for t in graph.nodes[p].outputs if t not in inner]
    readers = _readers(graph, nodes)
    own = {graph.nodes[p].outputs[0] for p in nodes}
    inputs = [
        t
        for t in readers
        if t not in own
        and not graph.tensors[t].constant
        and t not in graph.outputs
        and _all_inside(graph, t, inside)
    ]
    if not inputs or not outputs:
        return None
    size = {t: selection.layout(t).bytes(graph.tensors[t]) for t in (*inputs, *outputs)}
    x, y = max(inputs, key=lambda t: size[t]), max(outputs, key=lambda t: size[t])
    writer = next(p for p in nodes if y in graph.nodes[p].outputs)
    row_in = size[x] // graph.tensors[x].rows
    row_out = size[y] // graph.tensors[y].rows
    needs = [0]
    order = {p: k for k, p in enumerate(nodes)}
    for user, source in readers[x]:
        if user == writer:
            needs.append(_direct(graph, selection, user, source, x, row_in, row_out))
            continue
        # Who comes before the writer has read its rows of this step, who comes later has not.
        read = done[user] if order[user] < order[writer] else _before(done[user])
        live = _first_needed(graph, user, source, read)
        needs.append(int(np.max(done[writer] * row_out - live * row_in)))
    return Overlap(x, y, -(-max(needs) // 4) * 4)


def _direct(
    graph: Graph,
    selection: Selection,
    writer: int,
    source: RowSource,
    x: int,
    row_in: int,
    row_out: int,
) -> int:
    """Return the distance for a node that reads the input itself, band by band."""
    node, height = graph.nodes[writer], _height(graph, writer)
    op, kernel = op_named(node.op), selection.kernels[writer]
    assert kernel is not None
    same = row_in == row_out and selection.layout(x) == selection.layout(node.outputs[0])
    if same and op.in_place(Call(graph, node), source.input):
        return 0
    starts = np.arange(0, height, kernel.band)
    ends = np.minimum(starts + kernel.band, height)
    live = _first_needed(graph, writer, source, starts)
    return int(np.max(ends * row_out - live * row_in))
