"""Turn a Graph as translated into one without what its neighbours can do: clamps, views, means."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir import Graph, Node
from tinydeploy.ir.used import used
from tinydeploy.ops._window import activation_of, with_activation

_ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")


def tidy(graph: Graph) -> Graph:
    """Return an equal graph: clamps fused, means in the shape that is asked of them, no rest."""
    return used(_merged(graph))


def readers_of(graph: Graph) -> dict[int, list[int]]:
    """Return the positions of the nodes that read each tensor; -1 for an output of the graph."""
    found: dict[int, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for i in node.inputs:
            if i is not None:
                found.setdefault(i, []).append(position)
    for o in graph.outputs:
        found.setdefault(o, []).append(-1)
    return found


def _merged(graph: Graph) -> Graph:
    """Let the maker of a tensor do the work of its only reader where it can."""
    nodes: list[Node | None] = list(graph.nodes)
    readers = readers_of(graph)
    makers = {n.outputs[0]: p for p, n in enumerate(graph.nodes)}
    for position, node in enumerate(graph.nodes):
        source = node.inputs[0]
        if source is None or source not in makers or readers[source] != [position]:
            continue
        at = makers[source]
        maker = nodes[at]
        assert maker is not None
        shape = graph.tensors[node.outputs[0]].shape
        if node.op in _ACTIVATIONS and activation_of(maker.attributes) == "NONE":
            changed = with_activation(maker.attributes, node.op)
        elif node.op == "RESHAPE" and maker.op == "MEAN" and maker.attributes.keep_dims:
            full = graph.tensor(maker.inputs[0]).shape
            if shape != tuple(s for a, s in enumerate(full) if a not in maker.attributes.axes):
                continue
            changed = replace(maker.attributes, keep_dims=False)
        else:
            continue
        nodes[at] = replace(maker, name=node.name, outputs=node.outputs, attributes=changed)
        nodes[position] = None
        makers[node.outputs[0]] = at
    return graph.replace(nodes=tuple(n for n in nodes if n is not None))
