"""Turn a float Graph between QUANTIZE and DEQUANTIZE pairs into integers of the very same scales.

What lies between a DEQUANTIZE and a QUANTIZE becomes one integer node, as the QDQ form of ONNX
Runtime's quantisation means it; pairs remain only at float inputs and outputs of the network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.importers.onnx.tidy import readers_of
from tinydeploy.importers.operands import WEIGHTS_AXIS
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.fixedpoint import quantize_float
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.checks import run_checks, same_quantization

_HINT = (
    "put QuantizeLinear and DequantizeLinear around every operator, "
    "or give the float model and let tinydeploy quantise it"
)


def to_integer(graph: Graph) -> Graph:
    """Return the integer Graph of a model with pairs, a model without as it is.

    Raises ModelError where a value between two operators has no scale.
    """
    if not any(n.op == "QUANTIZE" for n in graph.nodes):
        return graph
    builder = _Builder(graph)
    for node in graph.nodes:
        builder.add(node)
    integer = graph.replace(
        tensors=tuple(builder.tensors),
        nodes=tuple(builder.nodes),
        outputs=tuple(builder.output(o) for o in graph.outputs),
    )
    for node in integer.nodes:
        run_checks(op_named(node.op), Call(integer, node))
    return integer


class _Builder:
    """Collect the nodes of the integer graph; `stored` maps a real value to its integers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tensors = list(graph.tensors)
        self.nodes: list[Node] = []
        self.stored: dict[int, int] = {}
        self.readers = readers_of(graph)

    def new(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add(self, node: Node) -> None:
        source, out = node.inputs[0], node.outputs[0]
        assert source is not None
        if node.op == "DEQUANTIZE":
            self.stored[out] = self.stored.get(source, source)
            if out in self.graph.outputs:
                self.nodes.append(replace(node, inputs=(self.stored[out],)))
        elif node.op == "QUANTIZE":
            self._quantize(node, source, out)
        else:
            self._compute(node, out)

    def _quantize(self, node: Node, source: int, out: int) -> None:
        """Keep what enters from float; what the maker wrote so already, alias; else rescale."""
        held = self.stored.get(source)
        if held is None:
            self.nodes.append(node)
        elif self.tensors[held].quantization == self.tensors[out].quantization:
            self.stored[out] = held
        else:
            self.nodes.append(replace(node, inputs=(held,)))

    def _asked(self, out: int) -> Quantization | None:
        """Return the quantisation of the first QUANTIZE that reads a value."""
        for position in self.readers.get(out, []):
            if position >= 0 and self.graph.nodes[position].op == "QUANTIZE":
                return self.graph.tensors[self.graph.nodes[position].outputs[0]].quantization
        return None

    def _compute(self, node: Node, out: int) -> None:
        op = op_named(node.op)
        moves = same_quantization in op.checks
        own = self._asked(out)
        if own is None and moves:
            first = self.stored.get(node.inputs[0] or 0)
            own = None if first is None else self.tensors[first].quantization
        if own is None or out in self.graph.outputs:
            raise ModelError(
                "the model quantises only some of its values",
                f"what {node.op} computes has no scale",
                _HINT,
                node.name,
            )
        inputs = [self._operand(node, k, i, own if moves else None)
                  for k, i in enumerate(node.inputs)]  # fmt: skip
        if node.op in WEIGHTS_AXIS:
            inputs = self._weighted(node, inputs)
        fixed = op.fixed_output.get(DType.INT8, own)
        written = self.new(replace(self.tensors[out], dtype=DType.INT8, quantization=fixed))
        self.nodes.append(replace(node, inputs=tuple(inputs), outputs=(written,)))
        if fixed != own:
            written = self._rescaled(written, own)
        self.stored[out] = written

    def _rescaled(self, index: int, quantization: Quantization | None) -> int:
        tensor = self.tensors[index]
        out = self.new(replace(tensor, name=f"{tensor.name}_rescaled", quantization=quantization))
        self.nodes.append(Node(self.tensors[out].name, "QUANTIZE", (index,), (out,)))
        return out

    def _operand(
        self, node: Node, position: int, index: int | None, shared: Quantization | None
    ) -> int | None:
        """Return the integers of an operand, in the scale of the output where they must be."""
        if index is None or (node.op in WEIGHTS_AXIS and position > 0):
            return index
        tensor = self.tensors[index]
        if tensor.data is not None:
            return self._constant(tensor, shared)
        held = self.stored.get(index)
        if held is None:
            raise ModelError(
                "the model quantises only some of its values",
                f"{node.op} reads '{tensor.name}', which has no scale",
                _HINT,
                node.name,
            )
        if shared is not None and self.tensors[held].quantization != shared:
            return self._rescaled(held, shared)
        return held

    def _constant(self, tensor: Tensor, shared: Quantization | None) -> int:
        """Return a constant as integers, its own ones where it has them."""
        data, q = tensor.data, tensor.quantization
        assert data is not None
        if q is not None and shared in (None, q):
            return self.new(tensor)
        real = data if q is None else (data.astype(np.float32) - q.zero_point) * np.float32(q.scale)
        q = shared or _spanning(float(real.min()), float(real.max()))
        values = quantize_float(real.astype(np.float32), q.scale, q.zero_point, "int8")
        return self.new(replace(tensor, dtype=DType.INT8, quantization=q, data=constant(values)))

    def _weighted(self, node: Node, inputs: list[int | None]) -> list[int | None]:
        """Return the operands of a weighted node with its bias in 32 bits.

        The scale of a bias is that of the input times that of the weights.
        """
        source, weights = self.tensors[inputs[0] or 0], self.tensors[inputs[1] or 0]
        if weights.quantization is None or weights.dtype is not DType.INT8:
            raise ModelError(
                "the model quantises only some of its values",
                f"the weights of {node.op} are {weights.dtype.value}",
                _HINT,
                node.name,
            )
        if len(inputs) < 3 or inputs[2] is None:
            return inputs
        bias = self.tensors[inputs[2]]
        scales = np.array(weights.quantization.scales, np.float64) * source.scale
        own = None if bias.quantization is None else np.array(bias.quantization.scales)
        assert bias.data is not None
        if own is not None and np.allclose(own, scales, rtol=1e-5, atol=0):
            return inputs
        real = bias.data.astype(np.float64) * (1.0 if own is None else own)
        values = np.clip(np.rint(real / scales), -(2**31), 2**31 - 1).astype(np.int32)
        q = Quantization(tuple(map(float, scales)), (0,) * len(scales))
        stored = replace(bias, dtype=DType.INT32, quantization=q, data=constant(values))
        return [inputs[0], inputs[1], self.new(stored)]

    def output(self, index: int) -> int:
        """Return the tensor of an output: float ones stay behind their DEQUANTIZE."""
        if self.graph.tensors[index].dtype is DType.FLOAT32:
            return index
        return self.stored.get(index, index)


def _spanning(low: float, high: float) -> Quantization:
    """Return the quantisation of real numbers from `low` to `high`, 0 among them exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255 or 1.0))
    return Quantization((scale,), (round(-128 - low / scale),))
