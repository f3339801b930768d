"""Share the arithmetic of ADD and SUB, which differ in a sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ir import DType, Tensor
from tinydeploy.numerics.fixedpoint import IntArray, quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops import _window as window
from tinydeploy.ops._elementwise import Attributes
from tinydeploy.ops.base import Array, Call, Kernel, Op, Stored, fused_activation
from tinydeploy.ops.checks import int8_or_int16

# TFLite add.cc: inputs are scaled up by so many bits before they meet, to fill the int32 range.
LEFT_SHIFT = {DType.INT8: 20, DType.INT16: 15}


@dataclass(frozen=True, slots=True)
class Params(elementwise.Params):
    """Mirror td_add_params: strides in elements, offsets are negated zero points."""

    a_offset: int
    a_multiplier: int
    a_shift: int
    b_offset: int
    b_multiplier: int
    b_shift: int
    b_sign: int
    out_offset: int
    out_multiplier: int
    out_shift: int
    clamp_min: int
    clamp_max: int


def of_node(call: Call) -> Params:
    """Return the parameters of an ADD or SUB."""
    return params(call, -1 if call.node.op == "SUB" else 1)


def params(call: Call, sign: int) -> Params:
    """Return the scaling of TFLite add.cc: both inputs to twice the larger scale, then out."""
    a, b, output = call.input(0), call.input(1), call.output
    common = 2 * max(float(a.scale), float(b.scale))
    a_multiplier, a_shift = quantize_multiplier(float(a.scale) / common)
    b_multiplier, b_shift = quantize_multiplier(float(b.scale) / common)
    out_multiplier, out_shift = quantize_multiplier(
        common / ((1 << LEFT_SHIFT[call.output.dtype]) * float(output.scale))
    )
    low, high = window.clamp_range(call.attributes.activation, output)
    return Params(
        *elementwise.strides(call),
        -a.zero_point, a_multiplier, a_shift, -b.zero_point, b_multiplier, b_shift, sign,
        output.zero_point, out_multiplier, out_shift, low, high,
    )  # fmt: skip


def scales_usable(call: Call) -> str | None:
    """The output scale is not so small that the sum cannot be scaled down to it."""
    common = 2 * max(float(call.input(0).scale), float(call.input(1).scale))
    real = common / ((1 << LEFT_SHIFT[call.output.dtype]) * float(call.output.scale))
    return (
        None
        if real < 1.0
        else f"input scales up to {common / 2:.3g}, output {call.output.scale:.3g}"
    )


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Scale both inputs, add, requantise, clamp (TFLite reference_integer_ops::Add)."""
    p, left_shift = of_node(call), LEFT_SHIFT[call.output.dtype]

    def scaled(x: Array, offset: int, multiplier: int, shift: int) -> IntArray:
        return requantize(
            (x.astype(np.int64) + offset) << left_shift, multiplier, shift, single=False
        )

    # The sign comes after the rounding: halves round up, whatever the sign.
    total = scaled(values[0], p.a_offset, p.a_multiplier, p.a_shift) + p.b_sign * scaled(
        values[1], p.b_offset, p.b_multiplier, p.b_shift
    )
    out = requantize(total, p.out_multiplier, p.out_shift, single=False) + p.out_offset
    return [np.clip(out, p.clamp_min, p.clamp_max).astype(call.output.dtype.numpy)]


def _power_of_two_int16(tensor: Tensor | None) -> bool:
    """Tell whether TFLite add.cc would take a tensor for its path without multipliers."""
    if tensor is None or tensor.dtype is not DType.INT16 or tensor.quantization is None:
        return False
    return math.frexp(tensor.scale)[0] == 0.5


def stored(call: Call) -> Stored:
    options, constants = fused_activation(call)
    return {**options, "PotScaleInt16": False}, constants


def make(name: str, summary: str, options: str, sign: int, kernels: tuple[Kernel, ...]) -> Op:
    """Return the operator for a sign of the second input."""

    def parse(reader: Any) -> Attributes:
        import tflite

        table = reader.options(getattr(tflite, options))
        tensors = (*reader.inputs, *reader.outputs)
        if table.PotScaleInt16() and all(map(_power_of_two_int16, tensors)):
            reader.refuse("int16 scales that are powers of two, declared for shifts alone")
        return Attributes(reader.activation(table.FusedActivationFunction()))

    def float_reference(call: Call, values: list[Array]) -> list[Array]:
        return [window.activate(values[0] + sign * values[1], call.attributes.activation)]

    return Op(
        name=name,
        summary=summary,
        parse=parse,
        checks=(int8_or_int16, elementwise.shapes_broadcast, scales_usable),
        shape=elementwise.shape,
        reference=reference,
        stored=stored,
        float_reference=float_reference,
        params=lambda call, profile: of_node(call),
        region=elementwise.region,
        columns=elementwise.columns,
        in_place=elementwise.in_place,
        pointwise=True,
        inputs=lambda call: (0, 1),
        kernels=kernels,
    )
