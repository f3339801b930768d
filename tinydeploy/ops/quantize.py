"""QUANTIZE: change scale and zero point of a tensor, or enter from float at the border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call, Op, int8_in_out, portable


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the result for each stored value, one byte each: what passes make of several nodes."""

    table: bytes


def multiplier_in_range(call: Call) -> str | None:
    """The input's scale over the output's is below 2^30."""
    if call.attributes:
        return None
    real = float(call.input().scale) / float(call.output.scale)
    return None if real < 2**30 else f"it is {real:.3g}"


def _table(call: Call, profile: IntegerProfile) -> Array:
    if call.attributes:
        return np.frombuffer(call.attributes.table, np.int8)
    inp, output = call.input(), call.output
    multiplier, shift = quantize_multiplier(float(inp.scale) / float(output.scale))
    x = lookup.stored_values() - inp.zero_point
    out = requantize(x, multiplier, shift, single=profile.rounds_once("QUANTIZE"))
    return np.clip(out + output.zero_point, -128, 127).astype(np.int8)


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Requantise each value (TFLite reference_ops::Requantize)."""
    return [_table(call, profile)[values[0].astype(np.int64) + 128]]


OP = Op(
    name="QUANTIZE",
    summary="int8 to int8 through a table; float input at the model's border only",
    parse=lambda reader: None,
    checks=(int8_in_out, multiplier_in_range),
    shape=lambda call: [call.input().shape],
    reference=reference,
    params=lambda call, profile: lookup.Params(call.input().row_bytes, _table(call, profile)),
    region=lookup.region,
    columns=lookup.region,
    in_place=lookup.in_place,
    pointwise=True,
    kernels=portable("lookup"),
)
