"""Turn an integer Graph into the float Graph that it approximates, to be quantised otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph, Node, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._window import activation_of, with_activation
from tinydeploy.passes import run_passes
from tinydeploy.quantize.normal import WEIGHTS_AXIS


def to_float(graph: Graph) -> Graph:
    """Return a network of real numbers that computes what an integer one does, but for rounding.

    Where an integer's smallest value stands for zero, values below are cut off without any word
    of the file: there a RELU is put. Raises ModelError for what has no meaning on floats.
    """
    graph = run_passes(graph, PROFILES["litert"], optimise=False)
    tensors, nodes = list(graph.tensors), []
    same: dict[int, int] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(same.get(i, i) if i is not None else i
                                          for i in node.inputs))  # fmt: skip
        source = node.inputs[0]
        if node.op == "QUANTIZE" and node.attributes is None and source is not None:
            same[node.outputs[0]] = source
            continue
        if op_named(node.op).float_reference is None:
            raise ModelError(
                f"{node.op} of integers has no meaning on real numbers", where=node.name
            )
        if node.op in WEIGHTS_AXIS:
            node = _real_bias(graph, node, tensors)
        nodes.append(_with_saturation(graph, node))
    read = {i for n in nodes for i in n.inputs if i is not None and i < len(graph.tensors)}
    wanted = {*read, *graph.inputs, *(o for n in nodes for o in n.outputs)}
    for i in wanted:
        if tensors[i].quantization is not None:
            tensors[i] = _real(tensors[i])
    restored = graph.replace(
        tensors=tuple(tensors), nodes=tuple(nodes),
        outputs=tuple(same.get(o, o) for o in graph.outputs),
        float_inputs=frozenset(), float_outputs=frozenset(),
    )  # fmt: skip
    verify_graph(restored)
    return restored


def _with_saturation(graph: Graph, node: Node) -> Node:
    """Give a node the activation that its output's range stands for."""
    out = graph.tensors[node.outputs[0]]
    q = out.quantization
    if q is None or activation_of(node.attributes) != "NONE" or node.op not in WEIGHTS_AXIS:
        return node
    smallest, largest = out.dtype.bounds
    if q.zero_point != smallest:
        return node
    top = q.scale * (largest - smallest)
    name = "RELU6" if abs(top - 6) < q.scale / 2 else "RELU"
    return replace(node, attributes=with_activation(node.attributes, name))


def _real(tensor: Tensor) -> Tensor:
    """Return a tensor as float32, with the real numbers of its data."""
    q = tensor.quantization
    if tensor.data is None or q is None or tensor.dtype is DType.FLOAT32:
        return replace(tensor, dtype=DType.FLOAT32, quantization=None)
    shape = [1] * len(tensor.shape)
    if q.per_channel:
        shape[q.axis] = len(q.scales)
    points = np.resize(np.array(q.zero_points, np.int64), len(q.scales)).reshape(shape)
    scales = np.array(q.scales).reshape(shape if q.per_channel else [1] * len(shape))
    values = constant(((tensor.data.astype(np.int64) - points) * scales).astype(np.float32))
    return replace(tensor, dtype=DType.FLOAT32, quantization=None, data=values)


def _real_bias(graph: Graph, node: Node, tensors: list[Tensor]) -> Node:
    """Return a layer with a float bias: its scale is that of the input times the weights'."""
    call = Call(graph, node)
    if not call.has_input(2):
        return node
    bias, q = call.input(2), call.input(1).quantization
    if bias.data is None or q is None:
        raise ModelError("a layer's weights or bias are computed", where=node.name)
    flat = bias.data.reshape(-1)
    scales = np.resize(np.array(q.scales), len(flat)) * call.input().scale
    values = constant((flat * scales).astype(np.float32))
    tensors.append(Tensor(bias.name, values.shape, DType.FLOAT32, None, values))
    return replace(node, inputs=(*node.inputs[:2], len(tensors) - 1))
