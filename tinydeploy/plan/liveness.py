"""Turn a Graph into buffers with lifetimes, sharing them for views and in-place operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, op_named
from tinydeploy.plan.layout import Buffer, aligned
from tinydeploy.plan.select import Selection


def executed(graph: Graph) -> tuple[int, ...]:
    """Return the positions of the nodes that do work: all but the views."""
    return tuple(p for p, n in enumerate(graph.nodes) if not op_named(n.op).view)


@dataclass(frozen=True, slots=True)
class Needs:
    """Hold all buffers of a plan, and which serves a node as scratch, pad row or accumulators."""

    buffers: tuple[Buffer, ...]
    scratch: dict[int, int]
    pad_rows: dict[int, int]
    accumulators: dict[int, int]

    def holding(self, tensor: int) -> int:
        """Return the index of the buffer that holds a tensor."""
        return next(k for k, b in enumerate(self.buffers) if tensor in b.tensors)


def buffers_of(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    segments: Sequence[tuple[int, ...]] = (),
    streamed_input: bool = False,
) -> Needs:
    """Return the buffers of a network.

    A step is the position of a node in the graph. Inputs live from step -1, or with
    `streamed_input` from their first reader, outputs to step n.
    The nodes of a segment run together: what one of them touches lives as long as the segment.
    They share scratch memory; each has its own row of padding.
    """
    span = {p: (p, p) for p in range(len(graph.nodes))}
    span.update({p: (nodes[0], nodes[-1]) for nodes in segments for p in nodes})
    last = _last_uses(graph, span)
    owner: dict[int, int] = {}  # tensor -> group
    groups: list[list[int]] = []
    births: list[int] = []

    def open_group(tensor: int, step: int) -> None:
        owner[tensor] = len(groups)
        groups.append([tensor])
        births.append(step)

    for i in dict.fromkeys(graph.inputs):
        readers = [span[p][0] for p, n in enumerate(graph.nodes) if i in n.inputs]
        open_group(i, min(readers, default=-1) if streamed_input else -1)
    for step, node in enumerate(graph.nodes):
        alone = span[step] == (step, step)
        reused = _reusable_input(graph, selection, node, step, last, owner, groups, alone)
        for k, o in enumerate(node.outputs):
            if k == 0 and reused is not None:
                owner[o] = owner[reused]
                groups[owner[reused]].append(o)
            else:
                open_group(o, span[step][0])
    buffers = [
        Buffer(
            graph.tensors[g[0]].name,
            tuple(g),
            aligned(max(selection.layout(t).bytes(graph.tensors[t]) for t in g)),
            births[k],
            max(last[t] for t in g),
        )
        for k, g in enumerate(groups)
    ]
    scratch: dict[int, int] = {}
    pad_rows: dict[int, int] = {}
    accumulators: dict[int, int] = {}
    for nodes in segments or [(p,) for p in range(len(graph.nodes))]:
        first, end = span[nodes[0]]
        sizes = {p: selection.scratch(graph, p, profile) for p in nodes}
        if most := max(sizes.values()):
            scratch.update({p: len(buffers) for p, size in sizes.items() if size})
            label = f"scratch of node {first}" + (f" to {end}" if end > first else "")
            buffers.append(Buffer(label, (), aligned(most), first, end))
        for p in nodes:
            if size := selection.pad_row_bytes(graph, p):
                pad_rows[p] = len(buffers)
                buffers.append(Buffer(f"padding of node {p}", (), aligned(size), first, end))
            if size := selection.accumulators(graph, p, profile):
                accumulators[p] = len(buffers)
                buffers.append(Buffer(f"sums of node {p}", (), aligned(size), first, end))
    return Needs(tuple(buffers), scratch, pad_rows, accumulators)


def lower_bound(buffers: tuple[Buffer, ...]) -> int:
    """Return the largest number of bytes alive at one step: no arena can be smaller."""
    steps = {b.first for b in buffers}
    return max((sum(b.bytes for b in buffers if b.first <= s <= b.last) for s in steps), default=0)


def _last_uses(graph: Graph, span: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    last: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    for step, node in enumerate(graph.nodes):
        for i in (*node.inputs, *node.outputs):
            if i is not None:
                last[i] = max(span[step][1], last.get(i, -1))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    return last


def _reusable_input(
    graph: Graph,
    selection: Selection,
    node: Node,
    step: int,
    last: dict[int, int],
    owner: dict[int, int],
    groups: list[list[int]],
    alone: bool,
) -> int | None:
    """Return the input whose buffer the first output takes over, if any.

    A view always does. An in-place operator does when no tensor of that buffer is needed later.
    """
    op, call = op_named(node.op), Call(graph, node)
    for position in op.inputs(call):
        i = node.inputs[position]
        if i is None or i not in owner:
            continue
        if op.view:
            return i
        if not alone:
            continue
        if selection.layout(i) != PLAIN or selection.layout(node.outputs[0]) != PLAIN:
            continue
        free = all(last[t] <= step for t in groups[owner[i]])
        if free and op.in_place(call, position) and graph.tensors[i].bytes == call.output.bytes:
            return i
    return None
