"""Turn QuantizeLinear and DequantizeLinear into QUANTIZE and DEQUANTIZE, constants into integers.

Unsigned activations become signed ones: every stored value and the zero point less 128.
"""

from __future__ import annotations

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
    """QuantizeLinear of an activation, or of weights that training left in float."""
    x = node.input()
    if isinstance(x, Known):
        return [_quantized(node, x)]
    q = _per_tensor(node)
    return [x.on(b.emit("QUANTIZE", (x.index,), None, node.name, DType.INT8, q))]


def _quantized(node: Operator, x: Known) -> Known:
    """Return round(x / scale) + zero point, halves to even, saturated (ONNX, QuantizeLinear)."""
    scales, points = _scales(node, np.uint8)
    if points.dtype not in (np.int8, np.uint8):
        node.refuse(f"constants of type {points.dtype}", "quantise weights to 8 bits")
    shape = _along(node, x.array, scales)[1]
    info = np.iinfo(points.dtype)
    rounded = np.rint(x.array.astype(np.float32) / scales.reshape(shape))
    stored = np.nan_to_num(rounded) + points.astype(np.float32).reshape(shape)
    return Known(np.clip(stored, info.min, info.max).astype(points.dtype))


def _along(node: Operator, array: Array, scales: Array) -> tuple[int, list[int]]:
    """Return the axis of the scales, and the shape in which they broadcast along it."""
    shape = [1] * array.ndim
    if len(scales) == 1:
        return 0, shape
    axis = node.axis(int(node.attributes.get("axis", 1)), array.ndim)
    if len(scales) != array.shape[axis]:
        node.refuse(f"{len(scales)} scales along an axis of {array.shape[axis]}")
    shape[axis] = len(scales)
    return axis, shape


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
    array = x.array
    if array.dtype.name not in ("int8", "uint8", "int32"):
        node.refuse(f"constants of type {array.dtype}")
    wide, shifted = array.astype(np.int64), points.astype(np.int64)
    if array.dtype == np.uint8:
        wide, shifted = wide - 128, shifted - 128
    axis, shape = _along(node, array, scales)
    real = (wide - shifted.reshape(shape)) * scales.reshape(shape).astype(np.float64)
    kind = np.int32 if array.dtype == np.int32 else np.int8
    stored = Stored(
        wide.astype(kind), tuple(map(float, scales)), tuple(int(p) for p in shifted), axis
    )
    return [Known(real.astype(np.float32), stored)]
