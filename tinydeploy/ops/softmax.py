"""SOFTMAX: turn scores along the last axis into probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics import interpolation
from tinydeploy.numerics.gemmlowp import softmax_exponentials, softmax_row
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Kernel, Op, RowSource, Stored, on_int16, portable_bytes
from tinydeploy.ops.checks import PROBABILITY, int8_or_int16


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold beta, the factor on the scores."""

    beta: float


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_softmax_params."""

    vectors: int  # per row
    depth: int
    exponentials: Array  # int32 [entries]: exp(-beta * scale * d) in Q0.31
    entries: int  # distances beyond the table contribute nothing


def parse(reader: Any) -> Attributes:
    from tflite import SoftmaxOptions

    beta = float(reader.options(SoftmaxOptions).Beta())
    if not 0.0 < beta < 1e6:
        reader.refuse(f"beta {beta}")
    return Attributes(beta)


def output_is_probability(call: Call) -> str | None:
    """The output has scale 1/256 and zero point -128, of int16 scale 1/32768."""
    out, wanted = call.output, PROBABILITY[call.output.dtype]
    if abs(out.scale - wanted.scale) < 1e-3 * wanted.scale and out.zero_point == wanted.zero_point:
        return None
    return f"scale {out.scale:.7g}, zero point {out.zero_point}"


def scale_in_range(call: Call) -> str | None:
    """The input's scale times beta is at least 2^-26 (TFLite asks for a multiplier above one).

    Of int16 it is below 4, so that distances scaled to 10 / 65535 fit 32 bits.
    """
    real = call.attributes.beta * call.input().scale
    if call.input().dtype is DType.INT16:
        return None if 2.0**-26 < real < 4.0 else f"it is {real:.3g}"
    return None if real * 2**26 > 1.0 else f"it is {real:.3g}"


def depth_in_range(call: Call) -> str | None:
    """Each vector has 1 to 4095 scores (the sum is held with 12 integer bits)."""
    depth = call.input().shape[-1] if call.input().shape else 0
    return None if 1 <= depth <= 4095 else f"it has {depth}"


def _table(call: Call) -> Array:
    table = softmax_exponentials(call.input().scale, call.attributes.beta)
    used = int(np.flatnonzero(table)[-1]) + 1
    return table[:used].astype(np.int32)


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Sum exponentials, scale by a fixed-point reciprocal (TFLite reference_ops::Softmax)."""
    if call.output.dtype is DType.INT16:
        p = wide_params(call, profile)
        rows = interpolation.softmax_row(values[0].astype(np.int64), p.multiplier, p.shift)
        return [rows.astype(np.int16)]
    table = softmax_exponentials(call.input().scale, call.attributes.beta)
    return [softmax_row(values[0].astype(np.int64), table).astype(np.int8)]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    scores = np.float32(call.attributes.beta) * values[0]
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return [powers / powers.sum(axis=-1, keepdims=True)]


def params(call: Call, profile: IntegerProfile) -> Params:
    inp = call.input()
    table = _table(call)
    return Params(inp.row_bytes // inp.shape[-1], inp.shape[-1], table, len(table))


@dataclass(frozen=True, slots=True)
class WideParams:
    """Mirror td_softmax_16_params."""

    vectors: int  # per row
    depth: int
    multiplier: int
    shift: int
    exponentials: Array  # int16 [513]
    reciprocals: Array  # int16 [513]


def wide_params(call: Call, profile: IntegerProfile) -> WideParams:
    inp = call.input()
    kind = np.float32 if "SOFTMAX" in profile.float32_factors else np.float64
    return WideParams(
        inp.elements // inp.rows // inp.shape[-1], inp.shape[-1],
        *interpolation.softmax_scale(inp.scale, call.attributes.beta, kind),
        interpolation.exponentials(), interpolation.reciprocals(),
    )  # fmt: skip


INT16 = Kernel(
    "softmax_16",
    "td_softmax_16",
    accepts=on_int16,
    params=lambda site: wide_params(site.call, site.profile),
    by_rows=True,
)


def stored(call: Call) -> Stored:
    return {"Beta": call.attributes.beta}, []


OP = Op(
    name="SOFTMAX",
    summary="softmax over the last axis, exponentials from a table, exact for int8",
    parse=parse,
    checks=(int8_or_int16, output_is_probability, scale_in_range, depth_in_range),
    shape=lambda call: [call.input().shape],
    reference=reference,
    stored=stored,
    float_reference=float_reference,
    fixed_output=PROBABILITY,
    params=params,
    region=lambda call: (RowSource(),),
    in_place=lambda call, position: True,
    kernels=(INT16, *portable_bytes("softmax")),
)
