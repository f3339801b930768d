"""Share what operators require of their tensors; each docstring is the sentence the user reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Quantization
from tinydeploy.ops.base import Call, Op

# Outputs between 0 and 1 (TensorFlow Lite 8-bit quantization specification; int16 as in its
# 16x8 kernels).
PROBABILITY: Mapping[DType, Quantization] = {
    DType.INT8: Quantization((1 / 256,), (-128,)),
    DType.INT16: Quantization((1 / 32768,), (0,)),
}


def int8_in_out(call: Call) -> str | None:
    """Activations are int8 with one scale and zero point per tensor."""
    for tensor in (*call.inputs, *call.outputs):
        if tensor is None or tensor.constant:
            continue
        if tensor.dtype.value != "int8":
            return f"tensor '{tensor.name}' is {tensor.dtype.value}"
        if tensor.quantization is None or tensor.quantization.per_channel:
            return f"tensor '{tensor.name}' has no per-tensor quantisation"
    return None


def int8_or_int16(call: Call) -> str | None:
    """Activations are all int8, or all int16 with zero point 0, with one scale per tensor."""
    if detail := each_int8_or_int16(call):
        return detail
    tensors = [t for t in (*call.inputs, *call.outputs) if t is not None and not t.constant]
    first = tensors[0]
    for tensor in tensors:
        if tensor.dtype is not first.dtype:
            return (
                f"tensor '{first.name}' is {first.dtype.value}, "
                f"'{tensor.name}' is {tensor.dtype.value}"
            )
    return None


def each_int8_or_int16(call: Call) -> str | None:
    """Each activation is int8, or int16 with zero point 0, with one scale per tensor."""
    for tensor in (*call.inputs, *call.outputs):
        if tensor is None or tensor.constant:
            continue
        if tensor.dtype not in (DType.INT8, DType.INT16):
            return f"tensor '{tensor.name}' is {tensor.dtype.value}"
        if tensor.quantization is None or tensor.quantization.per_channel:
            return f"tensor '{tensor.name}' has no per-tensor quantisation"
        if tensor.dtype is DType.INT16 and tensor.zero_point:
            return f"int16 tensor '{tensor.name}' has zero point {tensor.zero_point}"
    return None


def same_quantization(call: Call) -> str | None:
    """Input and output share scale and zero point."""
    for tensor in call.inputs:
        if tensor is None or tensor.quantization is None:
            continue
        if (tensor.scale, tensor.zero_point) != (call.output.scale, call.output.zero_point):
            return (
                f"input {tensor.scale:.7g}/{tensor.zero_point}, "
                f"output {call.output.scale:.7g}/{call.output.zero_point}"
            )
    return None


def batch_is_one(call: Call) -> str | None:
    """The input is a 4-D image of batch 1."""
    shape = call.input().shape
    return None if len(shape) == 4 and shape[0] == 1 else f"shape {list(shape)}"


def shape4(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return a shape as (batch, height, width, channels), leading ones added or axes merged."""
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    batch = int(np.prod(padded[:-3], dtype=np.int64))
    return batch, padded[-3], padded[-2], padded[-1]


def activations(call: Call) -> list[int]:
    """Positions of the inputs that are computed at run time."""
    return [k for k, t in enumerate(call.inputs) if t is not None and not t.constant]


def run_checks(op: Op, call: Call) -> None:
    """Raise ModelError with the sentence of the first check that a node fails.

    Checks on float tensors wait until the border pass has removed those that are allowed.
    """
    if any(t is not None and t.dtype is DType.FLOAT32 for t in (*call.inputs, *call.outputs)):
        return
    for check in op.checks:
        if detail := check(call):
            raise ModelError(
                f"{op.name} is not supported in this form: {detail}",
                "required: " + " ".join((check.__doc__ or "").split()),
                where=call.node.name,
            )
