"""Turn QuantizeLinear and DequantizeLinear into QUANTIZE and DEQUANTIZE, constants into integers.

Unsigned activations become signed ones: every stored value and the zero point less 128.
"""

from __future__ import annotations

import math

import numpy as np

from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import Array, Computed, Known, Stored, Value
from tinydeploy.importers.operands import MAX_SCALE, MIN_SCALE
from tinydeploy.ir import DType, Quantization


def _scales(node: Operator, default: type[np.generic]) -> tuple[Array, Array]:
    """Return scales and zero points as vectors of one length; the latter keep their type."""
    scales = node.known(1, "a scale").array.astype(np.float32).reshape(-1)
    points = np.zeros(len(scales), default)
    if node.optional(2) is not None:
        points = node.known(2, "a zero point").array.reshape(-1)
    if not np.all((scales >= MIN_SCALE) & (scales <= MAX_SCALE)) or len(points) != len(scales):
        node.refuse("scales that are not positive numbers, or not one zero point each")
    if node.attributes.get("block_size", 0):
        node.refuse("blocks of scales")
    return scales, points


def _per_tensor(node: Operator) -> Quantization:
    scales, points = _scales(node, np.uint8)
    if len(scales) != 1:
        node.refuse("a scale per channel of an activation", "give each activation one scale")
    if points.dtype not in (np.int8, np.uint8):
        node.refuse(f"activations of type {points.dtype}", "quantise activations to 8 bits")
    shift = 128 if points.dtype == np.uint8 else 0
    return Quantization((float(scales[0]),), (int(points[0]) - shift,))


def quantize_linear(b: Builder, node: Operator) -> list[Value]:
    """QuantizeLinear of an activation."""
    q = _per_tensor(node)
    x = node.computed()
    return [x.on(b.emit("QUANTIZE", (x.index,), None, node.name, DType.INT8, q))]


def dequantize_linear(b: Builder, node: Operator) -> list[Value]:
    """DequantizeLinear of an activation, or of integer weights."""
    x = node.input()
    if isinstance(x, Computed):
        tensor = b.tensors[x.index]
        q = _per_tensor(node)
        if tensor.quantization is None:
            b.describe(x.index, q)
        elif tensor.quantization != q:
            node.refuse("other scales than its value was quantised with")
        return [x.on(b.emit("DEQUANTIZE", (x.index,), None, node.name, DType.FLOAT32))]
    scales, points = _scales(node, np.int8)
    array, rank = x.array, len(x.shape)
    if array.dtype.name not in ("int8", "uint8", "int32"):
        node.refuse(f"constants of type {array.dtype}")
    wide = array.astype(np.int64)
    shifted = points.astype(np.int64)
    if array.dtype == np.uint8:
        wide, shifted = wide - 128, shifted - 128
    axis, shape = 0, [1] * rank
    if len(scales) > 1:
        axis = node.axis(int(node.attributes.get("axis", 1)), rank)
        if len(scales) != array.shape[axis]:
            node.refuse(f"{len(scales)} scales along an axis of {array.shape[axis]}")
        shape[axis] = len(scales)
    real = (wide - shifted.reshape(shape)) * scales.reshape(shape).astype(np.float64)
    kind = np.int32 if array.dtype == np.int32 else np.int8
    stored = Stored(
        wide.astype(kind), tuple(map(float, scales)), tuple(int(p) for p in shifted), axis
    )
    assert math.prod(real.shape) == array.size
    return [Known(real.astype(np.float32), stored)]
