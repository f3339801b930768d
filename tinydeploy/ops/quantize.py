"""QUANTIZE: change scale and zero point of a tensor, or enter from float at the border."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call, Kernel, Op, portable_bytes
from tinydeploy.ops.checks import each_int8_or_int16


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
    return _requantized(call, lookup.stored_values(), profile)


def _requantized(call: Call, values: Array, profile: IntegerProfile) -> Array:
    p, output = wide_params(call), call.output
    x = values.astype(np.int64) + p.in_offset
    out = requantize(x, p.multiplier, p.shift, single=profile.rounds_once("QUANTIZE"))
    return np.clip(out + p.out_offset, *output.dtype.bounds).astype(output.dtype.numpy)


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Requantise each value (TFLite reference_ops::Requantize)."""
    if _wide(call):
        return [_requantized(call, values[0], profile)]
    return [_table(call, profile)[values[0].astype(np.int64) + 128]]


@dataclass(frozen=True, slots=True)
class WideParams:
    """Mirror the parameters of quantize_16.c.j2."""

    elements: int
    in_offset: int
    multiplier: int
    shift: int
    out_offset: int


def wide_params(call: Call) -> WideParams:
    inp, output = call.input(), call.output
    multiplier, shift = quantize_multiplier(float(inp.scale) / float(output.scale))
    row = inp.elements // max(inp.rows, 1)
    return WideParams(row, -inp.zero_point, multiplier, shift, output.zero_point)


def _wide(call: Call) -> bool:
    """Tell whether there are too many values for a table, or they are to become int16."""
    return DType.INT16 in (call.input().dtype, call.output.dtype)


INT16 = Kernel(
    "quantize_16",
    "td_quantize_16",
    accepts=lambda site: _wide(site.call),
    params=lambda site: wide_params(site.call),
    constants=lambda site: {
        "source": 8 * site.call.input().dtype.size,
        "result": 8 * site.call.output.dtype.size,
    },
    by_rows=True,
)

OP = Op(
    name="QUANTIZE",
    summary="int8 to int8 through a table, from or to int16; float input at the border only",
    parse=lambda reader: None,
    checks=(each_int8_or_int16, multiplier_in_range),
    shape=lambda call: [call.input().shape],
    reference=reference,
    params=lambda call, profile: lookup.Params(call.input().row_bytes, _table(call, profile)),
    region=lookup.region,
    columns=lookup.region,
    in_place=lambda call, position: call.input().dtype is call.output.dtype,
    pointwise=True,
    kernels=(INT16, *portable_bytes("lookup")),
)
