"""Turn a float Graph, ranges and rounded weights into an integer Graph of equal tensor indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.numerics.fixedpoint import quantize_float
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.checks import run_checks, same_quantization
from tinydeploy.quantize.normal import WEIGHTS_AXIS
from tinydeploy.quantize.ranges import Range, quantization_of
from tinydeploy.quantize.weights import QuantizedWeights

# A bias is stored with the product of the scales of input and weights. Where it would need more
# bits than these, the channel's weights get a larger scale; the rest is room for the sum.
BIAS_LIMIT = 2**29


@dataclass(frozen=True, slots=True)
class Activations:
    """Say how every tensor computed at run time is stored: by index, quantisation and type."""

    quantization: Mapping[int, Quantization]
    dtype: DType = DType.INT8


def joined_tensors(
    graph: Graph, tensors: Iterable[int], dtype: DType
) -> tuple[dict[int, int], dict[int, Quantization]]:
    """Return which tensors share a quantisation, and which have one that their operator fixes.

    Operators that move values share those of their input and output. Each tensor is given with
    one that stands for all it shares with.
    """
    fixed = {
        n.outputs[0]: op_named(n.op).fixed_output[dtype]
        for n in graph.nodes
        if dtype in op_named(n.op).fixed_output
    }
    parent = {i: i for i in tensors}

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for node in graph.nodes:
        if same_quantization not in op_named(node.op).checks:
            continue
        sources, out = graph.activation_inputs(node), node.outputs[0]
        if len(sources) == 1 and sources[0] in fixed:
            fixed[out] = fixed[sources[0]]
            continue
        for i in sources:
            if i not in fixed:
                parent[root(i)] = root(out)
    return {i: root(i) for i in parent}, fixed


def store_activations(
    graph: Graph, ranges: Mapping[int, Range], dtype: DType = DType.INT8
) -> Activations:
    """Choose scale and zero point of every tensor that is computed at run time.

    Tensors that share theirs get the widest range of them all.
    """
    root, fixed = joined_tensors(graph, ranges, dtype)
    widest: dict[int, Range] = {}
    for i, (low, high) in ranges.items():
        a, b = widest.get(root[i], (low, high))
        widest[root[i]] = min(a, low), max(b, high)
    return Activations(
        {i: fixed.get(i) or quantization_of(*widest[root[i]], dtype) for i in ranges}, dtype
    )


def bias_floor(graph: Graph, node: Node, stored: Activations) -> np.ndarray | float:
    """Return the least weight scale per channel at which the bias fits its 32 bits."""
    call = Call(graph, node)
    data = call.input(2).data if call.has_input(2) else None
    source = node.inputs[0]
    assert source is not None
    if data is None:
        return 0.0
    return np.abs(data.reshape(-1).astype(np.float64)) / (
        stored.quantization[source].scale * BIAS_LIMIT
    )


def to_integer(graph: Graph, stored: Activations, weights: Mapping[int, QuantizedWeights]) -> Graph:
    """Return the integer graph; `weights` are by position of the node.

    Tensors keep their indices, those that are added come last. All inputs and outputs are
    declared as float, so that an application may hand over real numbers. Raises ModelError for a
    node that no integer operator accepts.
    """
    builder = _Builder(graph, stored)
    for position, node in enumerate(graph.nodes):
        builder.add(node, weights.get(position))
    integer = graph.replace(
        tensors=tuple(builder.tensors),
        nodes=tuple(builder.nodes),
        float_inputs=frozenset(range(len(graph.inputs))),
        float_outputs=frozenset(range(len(graph.outputs))),
    )
    verify_graph(integer)
    for node in integer.nodes:
        run_checks(op_named(node.op), Call(integer, node))
    return integer


class _Builder:
    """Collect the tensors and nodes of the integer graph."""

    def __init__(self, graph: Graph, stored: Activations) -> None:
        self.graph, self.stored = graph, stored
        self.tensors = [self._activation(i, t) for i, t in enumerate(graph.tensors)]
        self.nodes: list[Node] = []

    def _activation(self, index: int, tensor: Tensor) -> Tensor:
        q = self.stored.quantization.get(index)
        return tensor if q is None else replace(tensor, dtype=self.stored.dtype, quantization=q)

    def new(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add(self, node: Node, weights: QuantizedWeights | None) -> None:
        if node.op in WEIGHTS_AXIS:
            if weights is None:
                raise ModelError(
                    f"{node.op} with weights that are computed cannot be quantised",
                    where=node.name,
                )
            inputs = self._weighted(node, weights)
        else:
            inputs = tuple(self._operand(node, i) for i in node.inputs)
        self.nodes.append(replace(node, inputs=inputs))

    def _weighted(self, node: Node, weights: QuantizedWeights) -> tuple[int | None, ...]:
        call = Call(self.graph, node)
        source, kernel = node.inputs[0], call.input(1)
        assert source is not None
        q = Quantization(
            tuple(map(float, weights.scales)), (0,) * len(weights.scales), weights.axis
        )
        new = [self.new(replace(kernel, dtype=DType.INT8, quantization=q,
                                data=constant(weights.values)))]  # fmt: skip
        bias = call.input(2).data if call.has_input(2) else None
        if bias is not None:
            scales = weights.scales.astype(np.float64) * self.stored.quantization[source].scale
            wide = self.stored.dtype is DType.INT16
            limit = 2**39 if wide else 2**31 - 1
            values = np.clip(np.rint(bias.reshape(-1) / scales), -limit, limit)
            kind = DType.INT64 if wide else DType.INT32
            new.append(self.new(Tensor(call.input(2).name, (len(values),), kind,
                                       Quantization(tuple(map(float, scales)), (0,) * len(scales)),
                                       constant(values.astype(kind.numpy)))))  # fmt: skip
        return (source, *new)

    def _operand(self, node: Node, index: int | None) -> int | None:
        """Return the tensor that the integer node reads: requantised or rounded where needed."""
        if index is None:
            return None
        tensor = self.graph.tensors[index]
        shared = same_quantization in op_named(node.op).checks
        own = self.stored.quantization[node.outputs[0]]
        if tensor.data is not None and tensor.dtype is DType.FLOAT32:
            q = own if shared else quantization_of(
                float(tensor.data.min()), float(tensor.data.max()), self.stored.dtype
            )  # fmt: skip
            values = quantize_float(tensor.data, q.scale, q.zero_point, self.stored.dtype.value)
            return self.new(replace(tensor, dtype=self.stored.dtype, quantization=q,
                                    data=constant(values)))  # fmt: skip
        if tensor.data is not None or not shared or self.tensors[index].quantization == own:
            return index
        out = self.new(replace(self.tensors[index], name=f"{tensor.name}_rescaled",
                               quantization=own))  # fmt: skip
        self.nodes.append(Node(f"{tensor.name}_rescaled", "QUANTIZE", (index,), (out,)))
        return out
