"""Turn what a file claims about an operator's operands into a refusal when nothing can rely on it.

Operators check what they support (ops/*.py, `checks`); here are the claims that hold for all.
"""

from __future__ import annotations

import math
from typing import Any

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType
from tinydeploy.ops import Call, Op
from tinydeploy.ops import _pool as pool
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import ACTIVATIONS

MAX_NODES = 10_000
MAX_TENSORS = 50_000
MAX_ELEMENTS = 1 << 24  # of one tensor
MAX_RANK = 8
# Beyond these no real network goes, and products of two scales leave float32.
MIN_SCALE, MAX_SCALE = 2.0**-62, 2.0**62

# Axis of the output channels in the weights, and which input may be left out: the bias.
WEIGHTS_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
_BIAS = 2
# Elements of an image with its padding; the reference holds them as 64-bit integers.
_MAX_PADDED_ELEMENTS = 1 << 24


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Raise ModelError for a shape that no network on a microcontroller has."""
    if len(shape) > MAX_RANK or any(s < 1 for s in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ModelError(
            "a tensor has a dynamic, empty or absurdly large shape", f"{list(shape)}",
            "export the model with fixed sizes and batch 1", where=name,
        )  # fmt: skip


def check_operands(op: Op, call: Call) -> None:
    """Raise ModelError unless all operands are there and are of the kind every operator expects."""
    where = call.node.name
    inputs = call.inputs
    for tensor in call.outputs:
        if tensor.constant:
            raise ModelError(f"{op.name} writes a constant", f"'{tensor.name}'", "", where)
    weighted = op.name in WEIGHTS_AXIS
    for position in range(max(len(inputs), 2 if weighted else 1)):
        absent = position >= len(inputs) or inputs[position] is None
        if absent and not (weighted and position == _BIAS):
            raise ModelError(
                f"{op.name} lacks an input that it needs", f"input {position}", "", where
            )
    for position in op.inputs(call):
        if position >= len(inputs):
            raise ModelError(
                f"{op.name} lacks an input that it needs", f"input {position}", "", where
            )
        tensor = call.input(position)
        if not tensor.constant or tensor.dtype is DType.FLOAT32:
            continue  # float networks are quantised, or refused where integers are needed
        if tensor.dtype not in (DType.INT8, DType.INT16):
            raise ModelError(
                f"{op.name} reads a constant that is not int8 or int16", tensor.dtype.value, "",
                where,
            )  # fmt: skip
        if tensor.dtype is not call.output.dtype and op.name != "QUANTIZE":
            raise ModelError(
                f"{op.name} reads a constant of another type than it writes",
                f"{tensor.dtype.value}, and {call.output.dtype.value}", "", where,
            )  # fmt: skip
        if tensor.dtype is DType.INT16 and tensor.zero_point:
            raise ModelError(
                f"{op.name} reads an int16 constant with a zero point", f"{tensor.zero_point}", "",
                where,
            )  # fmt: skip
        if tensor.quantization is None or tensor.quantization.per_channel:
            raise ModelError(f"{op.name} reads a constant without one scale", "", "", where)
    if weighted:
        _check_axis(call, WEIGHTS_AXIS[op.name])
    _check_padding(op, call)


def _check_axis(call: Call, axis: int) -> None:
    quantization = call.input(1).quantization
    if quantization is not None and quantization.per_channel and quantization.axis != axis:
        raise ModelError(
            "weights are not quantised along their output channels",
            f"axis {quantization.axis}, which should be {axis}",
            where=call.node.name,
        )


def _check_padding(op: Op, call: Call) -> None:
    """Refuse windows that reach so far beyond the image that it is nearly all padding."""
    attributes = call.attributes
    _check_window(op, call, getattr(attributes, "window", attributes))
    if isinstance(attributes, window.Window):
        sizes = tuple(call.input(1).shape[1:3])
        dilations = (attributes.dilation_h, attributes.dilation_w)
    elif isinstance(attributes, pool.Attributes):
        sizes, dilations = (attributes.kernel_h, attributes.kernel_w), (1, 1)
    else:
        return
    image = call.input().shape
    if len(image) != 4 or len(sizes) != 2:
        return  # the operator's own checks say so better
    padded = image[3]
    for size, kernel, dilation in zip(image[1:3], sizes, dilations, strict=True):
        padded *= size + (kernel - 1) * dilation
    if padded > _MAX_PADDED_ELEMENTS:
        raise ModelError(
            f"{op.name} with a window that reaches too far is not supported",
            f"{list(sizes)} with dilation {list(dilations)} over {list(image[1:3])}",
            where=call.node.name,
        )


def _check_window(op: Op, call: Call, attributes: Any) -> None:
    """Refuse steps that are not positive, negative padding and names that nothing knows."""
    wrong = getattr(attributes, "activation", "NONE") not in ACTIVATIONS
    if isinstance(attributes, window.Window):
        w = attributes
        steps = [w.stride_h, w.stride_w, w.dilation_h, w.dilation_w]
        if isinstance(call.attributes, pool.Attributes):
            steps += [call.attributes.kernel_h, call.attributes.kernel_w]
        pads = (w.pad_top or 0, w.pad_bottom, w.pad_left, w.pad_right)
        wrong |= w.padding not in ("SAME", "VALID") or min(steps) < 1 or min(pads) < 0
    if wrong:
        raise ModelError(
            f"{op.name} with such options is not supported", f"{call.attributes}"[:200],
            where=call.node.name,
        )  # fmt: skip
