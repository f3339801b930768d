"""MUL: multiply two tensors element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import Array, Call, Op, portable
from tinydeploy.ops.checks import int8_or_int16


@dataclass(frozen=True, slots=True)
class Params(elementwise.Params):
    """Mirror td_mul_params: strides in elements, offsets are negated zero points."""

    a_offset: int
    b_offset: int
    out_offset: int
    multiplier: int
    shift: int
    clamp_min: int
    clamp_max: int


def parse(reader: Any) -> elementwise.Attributes:
    from tflite import MulOptions

    return elementwise.Attributes(
        reader.activation(reader.options(MulOptions).FusedActivationFunction())
    )


def multiplier_in_range(call: Call) -> str | None:
    """The product of the input scales over the output scale is below 2^30."""
    real = float(call.input(0).scale) * float(call.input(1).scale) / float(call.output.scale)
    return None if real < 2**30 else f"it is {real:.3g}"


def params(call: Call, profile: IntegerProfile) -> Params:
    a, b, output = call.input(0), call.input(1), call.output
    # TFLite mul.cc multiplies and divides the scales as float32.
    real = np.float32(a.scale) * np.float32(b.scale) / np.float32(output.scale)
    multiplier, shift = quantize_multiplier(float(real))
    low, high = window.clamp_range(call.attributes.activation, output)
    return Params(
        *elementwise.strides(call),
        -a.zero_point, -b.zero_point, output.zero_point, multiplier, shift, low, high,
    )  # fmt: skip


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Multiply, requantise, clamp (TFLite reference_integer_ops::Mul)."""
    p = params(call, profile)
    a = values[0].astype(np.int64) + p.a_offset
    b = values[1].astype(np.int64) + p.b_offset
    out = requantize(a * b, p.multiplier, p.shift, single=profile.rounds_once("MUL"))
    return [np.clip(out + p.out_offset, p.clamp_min, p.clamp_max).astype(call.output.dtype.numpy)]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    return [window.activate(values[0] * values[1], call.attributes.activation)]


OP = Op(
    name="MUL",
    summary="product of two tensors, broadcasting",
    parse=parse,
    checks=(int8_or_int16, elementwise.shapes_broadcast, multiplier_in_range),
    shape=elementwise.shape,
    reference=reference,
    float_reference=float_reference,
    params=params,
    region=elementwise.region,
    columns=elementwise.columns,
    in_place=elementwise.in_place,
    pointwise=True,
    inputs=lambda call: (0, 1),
    kernels=portable("mul"),
)
