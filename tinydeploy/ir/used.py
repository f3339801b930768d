"""Turn a Graph into one without nodes whose results nobody reads, nor tensors nothing names."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir.graph import Graph


def used(graph: Graph) -> Graph:
    """Return the graph without dead nodes; tensors are renumbered in order of appearance."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(i for i in node.inputs if i is not None)
    kept.reverse()
    order = dict.fromkeys(graph.inputs)
    for node in kept:
        order.update(dict.fromkeys(i for i in (*node.inputs, *node.outputs) if i is not None))
    order.update(dict.fromkeys(graph.outputs))
    number = {old: new for new, old in enumerate(order)}
    return graph.replace(
        tensors=tuple(graph.tensors[i] for i in order),
        nodes=tuple(
            replace(
                n,
                inputs=tuple(None if i is None else number[i] for i in n.inputs),
                outputs=tuple(number[i] for i in n.outputs),
            )
            for n in kept
        ),
        inputs=tuple(number[i] for i in graph.inputs),
        outputs=tuple(number[i] for i in graph.outputs),
    )
