"""SOFTMAX: turn scores along the last axis into probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.gemmlowp import softmax_exponentials, softmax_row
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import (
    PROBABILITY,
    Array,
    Call,
    Op,
    RowSource,
    Stored,
    int8_in_out,
    portable,
)


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
    """The output has scale 1/256 and zero point -128."""
    out = call.output
    if abs(out.scale - 1 / 256) < 1e-3 / 256 and out.zero_point == -128:
        return None
    return f"scale {out.scale:.7g}, zero point {out.zero_point}"


def scale_in_range(call: Call) -> str | None:
    """The input's scale times beta is at least 2^-26 (TFLite asks for a multiplier above one)."""
    real = call.attributes.beta * call.input().scale
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


def stored(call: Call) -> Stored:
    return {"Beta": call.attributes.beta}, []


OP = Op(
    name="SOFTMAX",
    summary="softmax over the last axis, exponentials from an exact table",
    parse=parse,
    checks=(int8_in_out, output_is_probability, scale_in_range, depth_in_range),
    shape=lambda call: [call.input().shape],
    reference=reference,
    stored=stored,
    float_reference=float_reference,
    fixed_output=PROBABILITY,
    params=params,
    region=lambda call: (RowSource(),),
    in_place=lambda call, position: True,
    kernels=portable("softmax"),
)
