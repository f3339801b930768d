"""Turn the first nodes of a Graph into strips of columns that are computed one after the other.

A strip is a copy of the nodes that works on fewer columns: rows are shorter, and take less RAM.
What the strips' windows share is computed again, and the input is read again (patch-based
inference, MCUNetV2, cut along one axis only: the other is streamed without computing anything
twice). The last tensors of the strips are joined where they lie: each is written into its columns
of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tinydeploy.ir import Graph, Node, Tensor
from tinydeploy.ops import Call, Layout, RowSource, op_named
from tinydeploy.ops.concatenation import Attributes as Join
from tinydeploy.ops.strided_slice import Attributes as Slice
from tinydeploy.plan.layout import Rows
from tinydeploy.plan.problem import Problem
from tinydeploy.plan.select import Selection

Columns = tuple[int, int]  # first, and one after the last

_JOIN = "join of strips"
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class Strips:
    """Say that the nodes before `end` are computed in `parts` strips."""

    end: int
    parts: int


def can_split(graph: Graph, end: int) -> bool:
    """Tell whether the nodes before `end` leave one image, and can work on some columns alone."""
    nodes = graph.nodes[:end]
    made = {o for n in nodes for o in n.outputs}
    later = {i for n in graph.nodes[end:] for i in n.inputs if i is not None}
    later |= set(graph.outputs)
    inputs = {i for n in nodes for i in n.inputs if i in graph.inputs}
    crossing = (made & later) | (set(graph.inputs) & later)
    if len(crossing) != 1 or crossing != {nodes[-1].outputs[0]} or len(inputs) != 1:
        return False
    images = [graph.tensors[t] for t in (*made, *inputs)]
    if any(len(t.shape) != 4 or t.shape[0] != 1 for t in images):
        return False
    return all(op_named(n.op).columns(Call(graph, n)) is not None for n in nodes)


def ranges(graph: Graph, end: int, last: Columns) -> dict[int, Columns]:
    """Return the columns of each tensor that some columns of the last node's output take."""
    needed: dict[int, Columns] = {graph.nodes[end - 1].outputs[0]: last}
    for node in reversed(graph.nodes[:end]):
        own = needed.get(node.outputs[0])
        if own is None:
            continue
        for tensor, source in _sources(graph, node):
            low, high = _reach(source, own)
            width = graph.tensors[tensor].shape[2]
            low, high = max(low, 0), min(high, width)
            if tensor in needed:
                low, high = min(low, needed[tensor][0]), max(high, needed[tensor][1])
            needed[tensor] = low, high
    return needed


def cut(width: int, parts: int) -> list[Columns]:
    """Return columns in parts of nearly one width."""
    edges = [k * width // parts for k in range(parts + 1)]
    return list(pairwise(edges))


def split(graph: Graph, strips: Strips) -> Graph:
    """Return the network with its first nodes in strips; the outputs are the same.

    Raises ValueError when it cannot be split so.
    """
    if not 0 < strips.end <= len(graph.nodes) or not can_split(graph, strips.end):
        raise ValueError(f"the nodes before {strips.end} cannot be computed in strips")
    if not 1 < strips.parts <= graph.tensors[graph.nodes[strips.end - 1].outputs[0]].shape[2]:
        raise ValueError(f"{strips.parts} strips")
    tensors: list[Tensor] = list(graph.tensors)
    nodes: list[Node] = []
    last = graph.nodes[strips.end - 1].outputs[0]
    joined: list[int] = []
    for k, columns in enumerate(cut(graph.tensors[last].shape[2], strips.parts)):
        needed = ranges(graph, strips.end, columns)
        part = _Part(graph, tensors, nodes, needed, k)
        for node in graph.nodes[: strips.end]:
            if node.outputs[0] in needed:
                part.add(node)
        joined.append(part.copies[last])
    nodes.append(Node(_JOIN, "CONCATENATION", tuple(joined), (last,), Join(2)))
    return graph.replace(tensors=tuple(tensors), nodes=(*nodes, *graph.nodes[strips.end :]))


class _Part:
    """Copy nodes for one strip into the lists of a new network."""

    def __init__(
        self,
        graph: Graph,
        tensors: list[Tensor],
        nodes: list[Node],
        needed: Mapping[int, Columns],
        number: int,
    ) -> None:
        self.graph, self.tensors, self.nodes = graph, tensors, nodes
        self.needed, self.number = needed, number
        self.copies: dict[int, int] = {}
        self.slices: dict[tuple[int, Columns], int] = {}

    def add(self, node: Node) -> None:
        out = node.outputs[0]
        own = self.needed[out]
        inputs: list[int | None] = list(node.inputs)
        left = right = 0
        for tensor, source in _sources(self.graph, node):
            low, high = _reach(source, own)
            width = self.graph.tensors[tensor].shape[2]
            left, right = max(0, -low), max(0, high - width)
            inputs[source.input] = self._columns(tensor, (max(low, 0), min(high, width)))
        narrow = op_named(node.op).narrow(Call(self.graph, node), left, right)
        self.copies[out] = self._tensor(out, own)
        name = f"{node.name} strip {self.number}"
        self.nodes.append(replace(node, name=name, inputs=tuple(inputs),
                                  outputs=(self.copies[out],), attributes=narrow))  # fmt: skip

    def _tensor(self, tensor: int, columns: Columns) -> int:
        old = self.graph.tensors[tensor]
        batch, height, _, channels = old.shape
        shape = (batch, height, columns[1] - columns[0], channels)
        self.tensors.append(replace(old, name=f"{old.name} strip {self.number}", shape=shape))
        return len(self.tensors) - 1

    def _columns(self, tensor: int, columns: Columns) -> int:
        """Return the tensor that holds some columns: the strip's copy, or a slice."""
        whole, first = self.copies.get(tensor, tensor), 0
        if tensor in self.copies:
            first = self.needed[tensor][0]
        shape = self.tensors[whole].shape
        begin, count = columns[0] - first, columns[1] - columns[0]
        if begin == 0 and count == shape[2]:
            return whole
        if (tensor, columns) not in self.slices:
            made = self._tensor(tensor, columns)
            attributes = Slice((0, 0, begin, 0), (1,) * 4, (1, shape[1], count, shape[3]), ())
            self.nodes.append(
                Node(f"strip {self.number}", "STRIDED_SLICE", (whole,), (made,), attributes)
            )
            self.slices[tensor, columns] = made
        return self.slices[tensor, columns]


def joined(graph: Graph, selection: Selection, strips: Strips) -> Selection:
    """Return the selection for a split network: strips are written where the whole lies.

    `strips` is what the network was split by.
    """
    position = next(p for p, n in enumerate(graph.nodes) if n.name == _JOIN)
    node = graph.nodes[position]
    pitch = graph.tensors[node.outputs[0]].row_bytes
    layouts = dict(selection.layouts)
    layouts.update((i, Layout(pitch=pitch)) for i in node.inputs if i is not None)
    kernels = list(selection.kernels)
    kernels[position] = None
    return replace(selection, kernels=tuple(kernels), layouts=layouts)


def promising(problem: Problem, factor: float, most: int = 2) -> list[Strips]:
    """Return the ways to split that promise least RAM at up to `factor` times the MACs.

    Rows are in use as in the unsplit segment, but narrower; the rest of the network is as good as
    it can be by itself.
    """
    graph, order = problem.graph, problem.order
    options = problem.options
    later = [0] * (len(order) + 1)
    for start in range(len(order) - 1, -1, -1):
        later[start] = min(
            max(o.bytes, later[end])
            for end in range(start + 1, len(order) + 1)
            for o in options[end]
            if o.start == start
        )
    found = []
    for end in range(1, len(order)):
        streams = [o for o in options[end] if o.start == 0 and o.streamed]
        if order[end - 1] + 1 != end or not streams or not can_split(graph, end):
            continue
        last = graph.tensors[graph.nodes[end - 1].outputs[0]]
        _, stream = problem.cut(min(streams, key=lambda o: o.bytes))
        assert stream is not None
        alive = {t: stream.alive(t) for t in stream.inner}
        extra = last.bytes + max(problem.uses_of(stream, lambda use: use.scratch))
        extra += sum(problem.uses_of(stream, lambda use: use.own))
        for parts in range(2, min(last.shape[2], _MOST_PARTS) + 1):
            strips = Strips(end, parts)
            work = work_factor(graph, strips)
            if work <= factor:
                peak = extra + _strip_bytes(graph, strips, alive)
                found.append((max(peak, later[end]), work, strips))
    found.sort(key=lambda f: (f[0], f[1]))
    kept: list[tuple[float, Strips]] = []
    for _, work, strips in found:
        if not kept or work < kept[-1][0]:
            kept.append((work, strips))
    return [strips for _, strips in kept[:most]]


def _strip_bytes(graph: Graph, strips: Strips, alive: Mapping[int, Rows]) -> int:
    """Return the most bytes of the rows that the widest strip needs at a time.

    `alive` has the rows of each tensor at each call; of inputs whole rows are there, too.
    """
    last = graph.tensors[graph.nodes[strips.end - 1].outputs[0]]
    largest = 0
    for columns in cut(last.shape[2], strips.parts):
        needed = ranges(graph, strips.end, columns)
        rows = sum(
            count * ((needed[t][1] - needed[t][0]) * graph.tensors[t].shape[3])
            for t, count in alive.items()
            if t in needed
        )
        largest = max(largest, int(np.max(rows)))
    return largest + max(graph.tensors[i].row_bytes for i in graph.inputs)


def work_factor(graph: Graph, strips: Strips) -> float:
    """Return the MACs in strips over those at once, of the whole network."""
    last = graph.nodes[strips.end - 1].outputs[0]
    total = extra = 0.0
    parts = [
        ranges(graph, strips.end, columns)
        for columns in cut(graph.tensors[last].shape[2], strips.parts)
    ]
    for p, node in enumerate(graph.nodes):
        macs = op_named(node.op).macs(Call(graph, node))
        total += macs
        if p < strips.end:
            out = node.outputs[0]
            columns = sum(r[out][1] - r[out][0] for r in parts if out in r)
            extra += macs * (columns / graph.tensors[out].shape[2] - 1)
    return 1.0 + extra / total if total else 1.0


def _sources(graph: Graph, node: Node) -> Sequence[tuple[int, RowSource]]:
    """Return the image tensors a node reads and which of their columns."""
    found = []
    for source in op_named(node.op).columns(Call(graph, node)) or ():
        tensor = node.inputs[source.input]
        if tensor is not None and not graph.tensors[tensor].constant:
            found.append((tensor, source))
    return found


def _reach(source: RowSource, own: Columns) -> Columns:
    """Return the columns that a range of output columns takes; may reach into the padding."""
    first, last = own[0] * source.stride, (own[1] - 1) * source.stride
    taps = (source.taps - 1) * source.dilation
    return first + source.offset, last + source.offset + taps + 1
