"""Turn a Graph into buffers with lifetimes, sharing them for views and in-place operators."""

from __future__ import annotations

from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, op_named
from tinydeploy.plan.layout import Buffer, aligned
from tinydeploy.plan.select import Selection


def executed(graph: Graph) -> tuple[int, ...]:
    """Return the positions of the nodes that do work: all but the views."""
    return tuple(p for p, n in enumerate(graph.nodes) if not op_named(n.op).view)


def buffers_of(
    graph: Graph, profile: IntegerProfile, selection: Selection
) -> tuple[tuple[Buffer, ...], dict[int, int]]:
    """Return the buffers, and for each node with scratch memory the index of its buffer.

    A step is the position of a node in the graph. Inputs live from step -1, outputs to step n.
    """
    last = _last_uses(graph)
    owner: dict[int, int] = {}  # tensor -> group
    groups: list[list[int]] = []
    births: list[int] = []

    def open_group(tensor: int, step: int) -> None:
        owner[tensor] = len(groups)
        groups.append([tensor])
        births.append(step)

    for i in dict.fromkeys(graph.inputs):
        open_group(i, -1)
    for step, node in enumerate(graph.nodes):
        reused = _reusable_input(graph, selection, node, step, last, owner, groups)
        for k, o in enumerate(node.outputs):
            if k == 0 and reused is not None:
                owner[o] = owner[reused]
                groups[owner[reused]].append(o)
            else:
                open_group(o, step)
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
    for step in range(len(graph.nodes)):
        if size := selection.scratch(graph, step, profile):
            scratch[step] = len(buffers)
            buffers.append(Buffer(f"scratch of node {step}", (), aligned(size), step, step))
    return tuple(buffers), scratch


def lower_bound(buffers: tuple[Buffer, ...]) -> int:
    """Return the largest number of bytes alive at one step: no arena can be smaller."""
    steps = {b.first for b in buffers}
    return max((sum(b.bytes for b in buffers if b.first <= s <= b.last) for s in steps), default=0)


def _last_uses(graph: Graph) -> dict[int, int]:
    last: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    for step, node in enumerate(graph.nodes):
        for i in (*node.inputs, *node.outputs):
            if i is not None:
                last[i] = step
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
        if selection.layout(i) != PLAIN or selection.layout(node.outputs[0]) != PLAIN:
            continue
        free = all(last[t] <= step for t in groups[owner[i]])
        if free and op.in_place(call, position) and graph.tensors[i].bytes == call.output.bytes:
            return i
    return None
