"""Turn a float Graph as imported into its normal form: constants in float, scales and clamps fused.

Batch normalisation, whether stored as MUL and ADD by constants or already folded, leaves nothing
but convolutions and dense layers (Krishnamoorthi 2018, section 3.2.2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph, Node, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._window import activation_of, with_activation
from tinydeploy.passes.prune import remove_unused

Floats = NDArray[np.float32]

# Axis of the output channels in the weights.
WEIGHTS_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_ACTIVATIONS = {"RELU", "RELU6", "RELU_N1_TO_1"}


def is_float(graph: Graph) -> bool:
    """Tell whether some node computes in float, so that the model must be quantised."""
    border = {"QUANTIZE", "DEQUANTIZE"}
    return any(
        graph.tensors[o].dtype is DType.FLOAT32
        for n in graph.nodes
        if n.op not in border
        for o in n.outputs
    )


def normalise(graph: Graph) -> Graph:
    """Return an equal float graph in normal form.

    Raises ModelError for weights that are not finite, and for tensors that are not float.
    """
    for step in (_float_constants, _fold_constants, _fold_scales, _fuse_activations):
        graph = step(graph)
    graph = remove_unused(graph, PROFILES["litert"])
    _check(graph)
    verify_graph(graph)
    return graph


def _check(graph: Graph) -> None:
    for node in graph.nodes:
        call = Call(graph, node)
        if op_named(node.op).float_reference is None:
            raise ModelError(
                f"{node.op} in a float network cannot be quantised", "", where=node.name
            )
        for tensor in (call.input(), call.output):
            if tensor.dtype is not DType.FLOAT32:
                raise ModelError(
                    "the model mixes float and integer layers",
                    f"'{tensor.name}' is {tensor.dtype.value}",
                    "quantise the float model it was made from",
                    node.name,
                )
    for tensor in graph.tensors:
        if tensor.data is not None and tensor.dtype is DType.FLOAT32:
            bad = tensor.elements - int(np.isfinite(tensor.data).sum())
            if bad:
                raise ModelError(
                    "the model has weights that are not finite numbers",
                    f"{bad:,} of {tensor.elements:,} values are NaN or infinite",
                    "the training went wrong; export it again",
                    tensor.name,
                )


def _float_constants(graph: Graph) -> Graph:
    """Give every integer constant that a float node computes with its real values.

    Models with integer weights and float activations (dynamic-range quantisation) are such.
    """
    tensors = list(graph.tensors)
    for node in graph.nodes:
        if graph.tensors[node.outputs[0]].dtype is not DType.FLOAT32 or node.op == "DEQUANTIZE":
            continue
        for i in node.inputs:
            if i is not None:
                tensors[i] = _real(tensors[i])
    return graph.replace(tensors=tuple(tensors))


def _real(tensor: Tensor) -> Tensor:
    q = tensor.quantization
    if tensor.data is None or q is None or tensor.dtype is DType.FLOAT32:
        return replace(tensor, quantization=None) if tensor.dtype is DType.FLOAT32 else tensor
    shape = [1] * len(tensor.shape)
    if q.per_channel:
        shape[q.axis] = len(q.scales)
    scales = np.array(q.scales, np.float32).reshape(shape)
    points = np.resize(np.array(q.zero_points, np.int64), len(q.scales)).reshape(shape)
    values = ((tensor.data.astype(np.int64) - points) * scales).astype(np.float32)
    return replace(tensor, dtype=DType.FLOAT32, quantization=None, data=constant(values))


def _fold_constants(graph: Graph) -> Graph:
    """Compute what depends on constants only."""
    tensors, nodes = list(graph.tensors), []
    for node in graph.nodes:
        arguments = [None if i is None else tensors[i].data for i in node.inputs]
        op, call = op_named(node.op), Call(graph.replace(tensors=tuple(tensors)), node)
        if node.op == "DEQUANTIZE" and arguments[0] is not None:
            tensors[node.outputs[0]] = replace(
                _real(call.input()), name=call.output.name, shape=call.output.shape
            )
        elif all(a is not None for a in arguments) and op.float_reference is not None:
            (value,) = op.float_reference(call, [a for a in arguments if a is not None])
            tensors[node.outputs[0]] = replace(call.output, data=constant(value.astype(np.float32)))
        else:
            nodes.append(node)
    for o in graph.outputs:
        if tensors[o].constant:
            raise ModelError("an output of the model is constant", f"'{tensors[o].name}'")
    return graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))


def readers_of(graph: Graph) -> dict[int, list[int]]:
    """Return the positions of the nodes that read each tensor; -1 for an output of the graph."""
    found: dict[int, list[int]] = {o: [-1] for o in graph.outputs}
    for position, node in enumerate(graph.nodes):
        for i in node.inputs:
            if i is not None:
                found.setdefault(i, []).append(position)
    return found


def _fold_scales(graph: Graph) -> Graph:
    """Fold a MUL, ADD or SUB by constants per channel into the weights of what it reads."""
    tensors, nodes = list(graph.tensors), list(graph.nodes)
    readers = readers_of(graph)
    makers = {n.outputs[0]: p for p, n in enumerate(nodes)}
    gone: set[int] = set()
    for position, node in enumerate(graph.nodes):
        source = _folds(graph, node, tensors)
        if source is None or readers.get(source) != [position] or source not in makers:
            continue
        at = makers[source]
        maker = nodes[at]
        if maker.op not in WEIGHTS_AXIS or maker.attributes.activation != "NONE":
            continue
        channels = tensors[source].shape[-1]
        other = node.inputs[1] if node.inputs[0] == source else node.inputs[0]
        factors = None if other is None else tensors[other].data
        assert factors is not None
        values = np.broadcast_to(factors.reshape(-1), (channels,))
        nodes[at] = _scaled(maker, node, values, tensors)
        makers[node.outputs[0]] = at
        gone.add(position)
    return graph.replace(
        tensors=tuple(tensors), nodes=tuple(n for p, n in enumerate(nodes) if p not in gone)
    )


def _folds(graph: Graph, node: Node, tensors: list[Tensor]) -> int | None:
    """Return the tensor that a node scales or shifts by a constant per channel, None if none."""
    if node.op not in ("MUL", "ADD", "SUB") or len(node.inputs) != 2:
        return None
    a, b = node.inputs
    if a is None or b is None or tensors[a].constant == tensors[b].constant:
        return None
    source, other = (b, a) if tensors[a].constant else (a, b)
    if node.op == "SUB" and source == b:
        return None
    shape = tensors[other].shape
    per_channel = not shape or all(s == 1 for s in shape[:-1])
    fits = tensors[other].elements in (1, tensors[source].shape[-1])
    return source if per_channel and fits else None


def _scaled(maker: Node, node: Node, values: Floats, tensors: list[Tensor]) -> Node:
    """Return the maker with its weights and bias changed, writing the node's output."""
    channels = len(values)
    weights = tensors[maker.inputs[1] or 0]
    assert weights.data is not None
    bias = np.zeros(channels, np.float32)
    if len(maker.inputs) > 2 and maker.inputs[2] is not None:
        stored = tensors[maker.inputs[2]].data
        assert stored is not None
        bias = stored.reshape(-1).astype(np.float32)
    data = weights.data
    if node.op == "MUL":
        shape = [1] * len(weights.shape)
        shape[WEIGHTS_AXIS[maker.op]] = channels
        data, bias = data * values.reshape(shape), bias * values
    else:
        bias = bias + values if node.op == "ADD" else bias - values
    index = len(tensors)
    tensors.append(replace(weights, data=constant(data.astype(np.float32))))
    tensors.append(Tensor(f"{weights.name}_bias", (channels,), DType.FLOAT32, None, constant(bias)))
    return replace(
        maker,
        inputs=(maker.inputs[0], index, index + 1),
        outputs=node.outputs,
        attributes=with_activation(maker.attributes, node.attributes.activation),
    )


def _fuse_activations(graph: Graph) -> Graph:
    """Make a RELU, RELU6 or RELU_N1_TO_1 the fused activation of what it alone reads."""
    nodes, readers = list(graph.nodes), readers_of(graph)
    makers = {n.outputs[0]: p for p, n in enumerate(nodes)}
    gone: set[int] = set()
    for position, node in enumerate(graph.nodes):
        source = node.inputs[0] if node.inputs else None
        if node.op not in _ACTIVATIONS or source is None or readers[source] != [position]:
            continue
        at = makers.get(source)
        if at is None or activation_of(nodes[at].attributes) != "NONE":
            continue
        nodes[at] = replace(
            nodes[at],
            outputs=node.outputs,
            attributes=with_activation(nodes[at].attributes, node.op),
        )
        makers[node.outputs[0]] = at
        gone.add(position)
    return graph.replace(nodes=tuple(n for p, n in enumerate(nodes) if p not in gone))
