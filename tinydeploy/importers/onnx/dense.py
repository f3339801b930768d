"""Turn ONNX matrix products by constants into dense layers."""

from __future__ import annotations

import numpy as np

from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import Known, Value, features_in_memory, stored_in
from tinydeploy.importers.onnx.windows import bias_of, weights_of
from tinydeploy.ops.fully_connected import Attributes


def gemm(b: Builder, node: Operator) -> list[Value]:
    """Gemm: alpha * A * B + beta * C, B and C constant."""
    alpha, beta = (float(node.attributes.get(k, 1.0)) for k in ("alpha", "beta"))
    if node.attributes.get("transA", 0):
        node.refuse("transA")
    by_rows = bool(node.attributes.get("transB", 0))
    weights = node.known(1, "a matrix")
    if alpha != 1.0:
        weights = Known((weights.array * alpha).astype(np.float32))
    bias = None
    if node.optional(2) is not None and beta != 0.0:
        bias = node.known(2, "a bias")
        if beta != 1.0:
            bias = Known((bias.array * beta).astype(np.float32))
    return [_dense(b, node, weights, by_rows, bias)]


def matmul(b: Builder, node: Operator) -> list[Value]:
    """MatMul by a constant matrix."""
    return [_dense(b, node, node.known(1, "a second factor"), False, None)]


def _dense(b: Builder, node: Operator, weights: Known, by_rows: bool, bias: Known | None) -> Value:
    """Append the layer; features that memory holds in another order are weighted in that order."""
    x = node.computed()
    if len(weights.shape) != 2 or len(x.shape) < 2:
        node.refuse(f"factors of shapes {list(x.shape)} and {list(weights.shape)}")
    depth, units = weights.shape[::-1] if by_rows else weights.shape
    if depth != x.shape[-1] or not depth or not units:
        node.refuse(f"factors of shapes {list(x.shape)} and {list(weights.shape)}")
    last = len(x.shape) - 1
    leading = tuple(range(last))
    before = [atom for axis in leading for atom in x.axes[axis]]
    columns = None
    if before == list(range(len(before))):
        index = b.reshape(x.index, x.shape)
        columns = features_in_memory(x, last)
    else:
        index = b.arrange(x, (*leading, last))
    axis = 0 if by_rows else 1
    order = (0, 1) if by_rows else (1, 0)
    name = f"{node.name}_weights"
    inputs = [index, weights_of(b, weights, name, axis, weights.shape, order, columns)]
    if bias is not None:
        if bias.array.size not in (1, units):
            node.refuse(f"a bias of shape {list(bias.shape)}")
        if bias.array.size != units:
            bias = Known(np.broadcast_to(bias.array.reshape(-1), (units,)))
        inputs.append(bias_of(b, bias, f"{node.name}_bias"))
    attributes = Attributes("NONE", len(x.shape) > 2)
    out = b.emit("FULLY_CONNECTED", inputs, attributes, node.name)
    return stored_in(out, b.tensors[out].shape, (*leading, last))
