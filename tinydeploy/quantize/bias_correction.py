"""Turn an integer Graph into one whose layers have, on average, the outputs of the float Graph.

Rounded weights shift the mean of each output channel, and such shifts add up from layer to layer
where noise does not. The difference of the means before the activation goes into the bias (Nagel
et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2, the empirical form). Layers are corrected in order, each on what the corrected ones
before it really give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._window import with_activation
from tinydeploy.ops.execute import run_floats
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.measure import to_integers, to_real
from tinydeploy.quantize.normal import WEIGHTS_AXIS

Array = NDArray[Any]

# The integers of all samples are held at once, and a mean settles soon: 64 samples of a layer of
# 10x10 pixels are 6,400 values per channel.
MOST_SAMPLES = 64


def correct_biases(
    floats: Graph,
    integers: Graph,
    samples: Sequence[Sequence[Array]],
    progress: Progress = quiet,
) -> Graph:
    """Return the integer graph with other biases; a tensor has the same index in both graphs.

    At most MOST_SAMPLES samples are used, spread evenly over those given.
    """
    count = min(len(samples), MOST_SAMPLES)
    chosen = [samples[k * len(samples) // count] for k in range(count)]
    layers = {n.outputs[0]: n for n in floats.nodes if n.op in WEIGHTS_AXIS}
    means = _input_means(floats, list(layers.values()), chosen)
    tensors, nodes = list(integers.tensors), list(integers.nodes)
    last = {i: p for p, n in enumerate(nodes) for i in n.inputs if i is not None}
    held = [
        dict(zip(integers.inputs, to_integers(integers, sample), strict=True)) for sample in chosen
    ]
    for position, node in enumerate(nodes):
        layer = layers.get(node.outputs[0])
        if layer is not None:
            source, weights = node.inputs[0], node.inputs[1]
            assert source is not None and weights is not None
            given = np.mean([to_real(integers, source, own[source]) for own in held], axis=0)
            mean = means[layer.inputs[0] or 0]  # `source` may be what was unpacked of that
            shift = _mean_output(floats, layer, mean, None) - _mean_output(
                floats, layer, given, _real_weights(tensors[weights])
            )
            node = nodes[position] = _shifted(tensors, node, shift)
        _run(integers.replace(tensors=tuple(tensors)), node, held)
        for i in (i for i in set(node.inputs) if i is not None and last.get(i) == position):
            for own in held:
                own.pop(i, None)
        progress(position + 1, len(nodes))
    return integers.replace(tensors=tuple(tensors), nodes=tuple(nodes))


def _input_means(
    floats: Graph, layers: Sequence[Node], samples: Sequence[Sequence[Array]]
) -> dict[int, Array]:
    """Return the mean over all samples of the tensors that layers read, in their own shapes."""
    sums: dict[int, Array] = {}
    for sample in samples:
        values = run_floats(floats, sample)
        for i in {n.inputs[0] for n in layers}:
            assert i is not None
            sums[i] = sums.get(i, np.zeros(1)) + values[i].astype(np.float64)
    return {i: total / len(samples) for i, total in sums.items()}


def _mean_output(floats: Graph, layer: Node, mean: Array, weights: Array | None) -> Array:
    """Return the mean output per channel before the activation, for a mean input.

    A layer is linear, so that the mean of its outputs is its output for the mean of its inputs.
    """
    plain = replace(layer, attributes=with_activation(layer.attributes, "NONE"))
    call = Call(floats, plain)
    reference = op_named(layer.op).float_reference
    assert reference is not None
    kernel = call.input(1).data if weights is None else weights
    assert kernel is not None
    (out,) = reference(call, [mean.astype(np.float64), kernel.astype(np.float64)])
    return np.asarray(out.reshape(-1, out.shape[-1]).mean(axis=0))


def _real_weights(tensor: Tensor) -> Array:
    q = tensor.quantization
    assert q is not None and tensor.data is not None
    shape = [1] * len(tensor.shape)
    shape[q.axis] = len(q.scales)
    return np.asarray(tensor.data * np.array(q.scales).reshape(shape))


def _shifted(tensors: list[Tensor], node: Node, shift: Array) -> Node:
    """Add real numbers to the bias of an integer layer, which gets one if it had none."""
    source, weights = (tensors[i] for i in node.inputs[:2] if i is not None)
    assert weights.quantization is not None
    scales = np.resize(np.array(weights.quantization.scales) * source.scale, len(shift))
    kind = DType.INT32 if source.dtype is DType.INT8 else DType.INT64
    bias = Tensor(
        f"{weights.name}_bias", (len(shift),), kind,
        Quantization(tuple(map(float, scales)), (0,) * len(scales)),
        np.zeros(len(shift), kind.numpy),
    )  # fmt: skip
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = tensors[node.inputs[2]]
    assert bias.data is not None
    limit = 2**31 - 1 if kind is DType.INT32 else 2**39
    values = np.clip(bias.data + np.rint(shift / scales), -limit, limit).astype(kind.numpy)
    tensors.append(replace(bias, data=constant(values)))
    return replace(node, inputs=(*node.inputs[:2], len(tensors) - 1))


def _run(graph: Graph, node: Node, held: Sequence[dict[int, Array]]) -> None:
    """Compute a node for every sample."""
    call, op = Call(graph, node), op_named(node.op)
    for own in held:
        arguments = [_value(graph, own, i) for i in node.inputs]
        own.update(
            zip(node.outputs, op.reference(call, arguments, PROFILES["litert"]), strict=True)
        )


def _value(graph: Graph, own: Mapping[int, Array], index: int | None) -> Array:
    if index is None:
        return np.zeros(0, np.int8)
    data = graph.tensors[index].data
    return own[index] if data is None else data
