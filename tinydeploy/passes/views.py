"""Turn operators that move no byte into views: a TRANSPOSE of axes of size 1."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call
from tinydeploy.ops.reshape import Attributes


def find_views(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with every TRANSPOSE that keeps the order of bytes as a RESHAPE."""
    return graph.replace(nodes=tuple(_view(graph, node) for node in graph.nodes))


def _view(graph: Graph, node: Node) -> Node:
    if node.op != "TRANSPOSE":
        return node
    call = Call(graph, node)
    moved = [a for a in node.attributes.permutation if call.input().shape[a] > 1]
    if moved != sorted(moved):
        return node
    return replace(
        node, op="RESHAPE", inputs=node.inputs[:1], attributes=Attributes(call.output.shape)
    )
