"""Move TRANSPOSE behind the MEAN that reads it, where it is smaller or nothing at all."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir import Graph, Node, Tensor
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.transpose import Attributes as Order


def sink_transposes(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with the mean of a transposed tensor as the transposed mean.

    Exact: the same elements are summed. What is left to transpose is smaller; if it only moves
    axes of size 1, or none, it is a view.
    """
    tensors, nodes = list(graph.tensors), list(graph.nodes)
    orders: dict[int | None, Node] = {}  # tensor -> the TRANSPOSE that makes it
    position = 0
    while position < len(nodes):
        node = nodes[position]
        maker = None if node.op != "MEAN" else orders.get(node.inputs[0])
        swapped = _swapped(graph, tensors, maker, node) if maker else []
        if swapped:
            nodes[position : position + 1] = swapped
        if nodes[position].op == "TRANSPOSE":
            orders[nodes[position].outputs[0]] = nodes[position]
        position += 1
    return graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))


def _swapped(graph: Graph, tensors: list[Tensor], maker: Node, mean: Node) -> list[Node]:
    """Return the MEAN of what the TRANSPOSE reads, then the TRANSPOSE; nothing if that is refused.

    The tensor between the two is appended to `tensors`.
    """
    order = maker.attributes.permutation
    if mean.attributes.keep_dims:
        return []
    axes = tuple(sorted(order[a] for a in mean.attributes.axes))
    kept = [axis for k, axis in enumerate(order) if k not in mean.attributes.axes]
    source, out = tensors[maker.inputs[0] or 0], tensors[mean.outputs[0]]
    left = tuple(sorted(kept).index(axis) for axis in kept)
    first = replace(
        mean,
        inputs=(maker.inputs[0], *mean.inputs[1:]),
        outputs=(len(tensors),),
        attributes=replace(mean.attributes, axes=axes),
    )
    between = replace(out, shape=tuple(source.shape[a] for a in sorted(kept)))
    call = Call(graph.replace(tensors=(*tensors, between)), first)
    if any(check(call) for check in op_named("MEAN").checks):
        return []
    tensors.append(between)
    second = Node(
        mean.name, "TRANSPOSE", (len(tensors) - 1, *maker.inputs[1:]), mean.outputs, Order(left)
    )
    return [first, second]
