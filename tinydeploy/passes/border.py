"""Fold float inputs and outputs into the interface, so that the network is integer only.

A QUANTIZE that reads a graph input becomes the input itself, a DEQUANTIZE that writes a graph
output becomes the output itself. The generated header converts between the two with the very
arithmetic of the removed operators.
"""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph
from tinydeploy.numerics.profile import IntegerProfile


def fold_float_border(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return a graph whose inputs and outputs are integers; raises ModelError if it cannot be."""
    renamed: dict[int, int] = {}
    removed: set[int] = set()
    inputs, float_inputs = list(graph.inputs), set(graph.float_inputs)
    outputs, float_outputs = list(graph.outputs), set(graph.float_outputs)
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for i in node.inputs:
            if i is not None:
                readers.setdefault(i, []).append(position)
    for slot, i in enumerate(inputs):
        if graph.tensors[i].dtype is not DType.FLOAT32:
            continue
        users = readers.get(i, [])
        if not users or any(graph.nodes[p].op != "QUANTIZE" for p in users):
            raise ModelError(
                "the model computes in float",
                f"float input '{graph.tensors[i].name}' is not quantised first",
                "'tinydeploy quantize' makes integers of a float model",
            )
        first, *others = [graph.nodes[p].outputs[0] for p in users]
        if any(graph.tensors[o].quantization != graph.tensors[first].quantization for o in others):
            raise ModelError(f"input '{graph.tensors[i].name}' is quantised in two ways")
        removed.update(users)
        renamed.update({o: first for o in others})
        inputs[slot] = first
        float_inputs.add(slot)
    for slot, o in enumerate(outputs):
        if graph.tensors[o].dtype is not DType.FLOAT32:
            continue
        writer = next((p for p, n in enumerate(graph.nodes) if o in n.outputs), None)
        if writer is None or graph.nodes[writer].op != "DEQUANTIZE" or readers.get(o):
            raise ModelError(
                "the model computes in float",
                f"float output '{graph.tensors[o].name}' does not come from a DEQUANTIZE alone",
                "'tinydeploy quantize' makes integers of a float model",
            )
        removed.add(writer)
        source = graph.nodes[writer].inputs[0]
        assert source is not None
        outputs[slot] = source
        float_outputs.add(slot)
    nodes = tuple(
        replace(n, inputs=tuple(renamed.get(i, i) if i is not None else None for i in n.inputs))
        for p, n in enumerate(graph.nodes)
        if p not in removed
    )
    for node in nodes:
        for i in (*node.inputs, *node.outputs):
            if i is not None and graph.tensors[i].dtype is DType.FLOAT32:
                raise ModelError(
                    "the model computes in float",
                    f"{node.op} works on float tensor '{graph.tensors[i].name}'",
                    "'tinydeploy quantize' makes integers of a float model",
                )
    return graph.replace(
        nodes=nodes,
        inputs=tuple(inputs),
        outputs=tuple(renamed.get(o, o) for o in outputs),
        float_inputs=frozenset(float_inputs),
        float_outputs=frozenset(float_outputs),
    )
