"""LOGISTIC: apply the logistic (sigmoid) function to each element."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics import interpolation
from tinydeploy.numerics.gemmlowp import logistic_int8
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call, Kernel, Op, on_int16, portable_bytes
from tinydeploy.ops.checks import PROBABILITY, int8_or_int16


def output_is_probability(call: Call) -> str | None:
    """The output has scale 1/256 and zero point -128, of int16 scale 1/32768."""
    out, wanted = call.output, PROBABILITY[call.output.dtype]
    if abs(out.scale - wanted.scale) < 1e-6 * wanted.scale and out.zero_point == wanted.zero_point:
        return None
    return f"scale {out.scale:.7g}, zero point {out.zero_point}"


def scale_in_range(call: Call) -> str | None:
    """The input's scale is between 2^-27 and 8, 2 of int16."""
    scale, highest = call.input().scale, 2.0 if call.input().dtype is DType.INT16 else 8.0
    return None if 2.0**-27 < scale < highest else f"it is {scale:.3g}"


def float_table(scale: float, zero_point: int) -> Array:
    """Return the function of all stored values, computed in float32 as LiteRT does.

    TensorFlow Lite, activations.cc, PopulateLookupTable. The exponential is rounded once from
    float64: the host's float32 one may differ in the last bit between libraries.
    """
    real = np.float32(scale) * (lookup.stored_values() - zero_point).astype(np.float32)
    with np.errstate(over="ignore"):
        power = np.exp(-real.astype(np.float64)).astype(np.float32)
    share = np.float32(1) / (np.float32(1) + power) * np.float32(256)
    rounded = np.floor(share.astype(np.float64) + 0.5)
    table: Array = np.clip(rounded - 128, -128, 127).astype(np.int8)
    return table


def _table(call: Call, profile: IntegerProfile) -> Array:
    inp = call.input()
    if "LOGISTIC" in profile.float_tables:
        return float_table(inp.scale, inp.zero_point)
    return logistic_int8(lookup.stored_values(), inp.scale, inp.zero_point).astype(np.int8)


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Look up the float32 function or gemmlowp's fixed-point one, as the profile says.

    The latter is TFLite reference_integer_ops::Logistic.
    """
    if call.output.dtype is DType.INT16:
        p = wide_params(call)
        found = interpolation.logistic_int16(values[0].astype(np.int64), p.multiplier, p.shift)
        return [found.astype(np.int16)]
    return [_table(call, profile)[values[0].astype(np.int64) + 128]]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    with np.errstate(over="ignore"):
        return [np.float32(1) / (np.float32(1) + np.exp(-values[0]))]


@dataclass(frozen=True, slots=True)
class WideParams:
    """Mirror td_logistic_16_params."""

    elements: int
    multiplier: int
    shift: int
    table: Array  # uint16 [256]


def wide_params(call: Call) -> WideParams:
    inp = call.input()
    row = inp.elements // max(inp.rows, 1)
    return WideParams(row, *interpolation.sigmoid_scale(inp.scale), interpolation.sigmoids())


INT16 = Kernel(
    "logistic_16",
    "td_logistic_16",
    accepts=on_int16,
    params=lambda site: wide_params(site.call),
    by_rows=True,
)

OP = Op(
    name="LOGISTIC",
    summary="logistic function through a 256-entry table, exact for int8",
    parse=lambda reader: None,
    checks=(int8_or_int16, output_is_probability, scale_in_range),
    shape=lambda call: [call.input().shape],
    reference=reference,
    float_reference=float_reference,
    fixed_output=PROBABILITY,
    params=lambda call, profile: lookup.Params(call.input().row_bytes, _table(call, profile)),
    region=lookup.region,
    columns=lookup.region,
    in_place=lookup.in_place,
    pointwise=True,
    kernels=(INT16, *portable_bytes("lookup")),
)
