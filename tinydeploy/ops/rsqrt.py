"""RSQRT: apply 1 / sqrt(x) to each element."""

from __future__ import annotations

from functools import cache

import numpy as np

from tinydeploy.numerics.fixedpoint import IntArray, quantize_multiplier, requantize_double
from tinydeploy.numerics.gemmlowp import inverse_square_root
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call

# Bits by which TFLite shifts 1 / sqrt(n), to keep it an integer.
_SHIFT = 20


def _multiplier(call: Call) -> float:
    """Return 1 / (sqrt(input scale) * output scale); the product is float32 in LiteRT."""
    root = np.sqrt(np.float32(call.input().scale))
    return 1.0 / float(root * np.float32(call.output.scale))


def multiplier_in_range(call: Call) -> str | None:
    """The output's scale times the root of the input's is between 2^-29 and 2^11."""
    found = 1 / _multiplier(call)
    return None if 2.0**-29 < found < 2.0**11 else f"it is {found:.3g}"


def table(call: Call, profile: IntegerProfile) -> Array:
    """Compute in fixed point (TensorFlow Lite, elementwise.cc, RsqrtEvalQuantized).

    The greatest value at 0, as in LiteRT, and below, where LiteRT refuses to run.
    """
    x = lookup.stored_values() - call.input().zero_point
    multiplier, shift = quantize_multiplier(_multiplier(call))
    output = requantize_double(_roots()[np.maximum(x, 0)], multiplier, shift - _SHIFT)
    result = np.clip(output + call.output.zero_point, -128, 127)
    return np.where(x > 0, result, 127).astype(np.int8)


@cache
def _roots() -> IntArray:
    """Return 2^20 / sqrt(n) for n = 0 .. 255; that of 0 is never used."""
    found = [inverse_square_root(n) for n in range(256)]
    return requantize_double(
        np.ones(256, np.int64), [m for m, _ in found], [s + _SHIFT for _, s in found]
    )


def _rsqrt(x: Array) -> Array:
    found: Array = 1 / np.sqrt(x)
    return found


OP = lookup.make(
    "RSQRT",
    "1 / sqrt(x) through an exact 256-entry table; the greatest value at and below zero",
    table,
    lambda call: _rsqrt,
    checks=(multiplier_in_range,),
)
