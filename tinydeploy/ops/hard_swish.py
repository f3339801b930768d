"""HARD_SWISH: apply x * relu6(x + 3) / 6 to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.numerics.fixedpoint import (
    IntArray,
    quantize_multiplier,
    rounding_divide_by_power_of_two,
)
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


def _multiplier(real: float) -> tuple[int, int]:
    """Return a 15-bit multiplier and its exponent (TFLite DownScaleInt32ToInt16Multiplier)."""
    multiplier, exponent = quantize_multiplier(real)
    return min((multiplier + (1 << 15)) >> 16, 32767), exponent


def _output_multiplier(call: Call) -> tuple[int, int]:
    fine = np.float32(1 / 128) * np.float32(call.input().scale)
    return _multiplier(float(fine / np.float32(call.output.scale)))


def scales_usable(call: Call) -> str | None:
    """The input's scale is at most 128 times the output's, and below 2^10."""
    scale, out = float(call.input().scale), float(call.output.scale)
    if scale < 2.0**10 and scale < 2.0**8 * out and _output_multiplier(call)[1] <= 0:
        return None
    return f"input {scale:.3g}, output {out:.3g}"


def _high_mul(a: IntArray, b: int | IntArray, *, rounded: bool) -> IntArray:
    """Return 2 * a * b / 2^16 of int16 values towards zero or rounded, saturated (gemmlowp)."""
    product = a * b
    if rounded:
        product = product + np.where(product >= 0, 1 << 14, 1 - (1 << 14))
    quotient: IntArray = np.sign(product) * (np.abs(product) >> 15)
    return np.minimum(quotient, 32767)


def _saturated(x: IntArray) -> IntArray:
    clipped: IntArray = np.clip(x, -32768, 32767)
    return clipped


def table(call: Call, profile: IntegerProfile) -> Array:
    """Compute in 16-bit fixed point (TensorFlow Lite, reference_ops::HardSwish, HardSwishPrepare).

    The factor (x + 3) / 6 is first held as x / 3 in [-1, 1], with 16 bits.
    """
    inp, out = call.input(), call.output
    fine = (lookup.stored_values() - inp.zero_point) << 7
    multiplier, exponent = _output_multiplier(call)
    before_shift = _high_mul(fine, multiplier, rounded=True)
    real = np.float32(1 / 128) * np.float32(inp.scale) / np.float32(3 / 32768)
    factor_multiplier, factor_exponent = _multiplier(float(real))
    factor = fine
    if factor_exponent > 0:
        factor = _saturated(factor << (factor_exponent - 1))
    factor = _high_mul(factor, factor_multiplier, rounded=True)
    if factor_exponent > 0:
        factor = _saturated(factor << 1)
    if factor_exponent < 0:
        factor = rounding_divide_by_power_of_two(factor, -factor_exponent)
    factor = (factor + (1 << 15)) >> 1
    # Truncated: this undoes the bias of the two roundings above.
    product = _high_mul(factor, before_shift, rounded=False)
    result = rounding_divide_by_power_of_two(product, -exponent) + out.zero_point
    return np.clip(result, -128, 127).astype(np.int8)


def _hard_swish(x: Array) -> Array:
    result: Array = x * np.clip(x + 3, 0, 6) / 6
    return result


OP = lookup.make(
    "HARD_SWISH",
    "x relu6(x + 3) / 6 through an exact 256-entry table",
    table,
    lambda call: _hard_swish,
    checks=(scales_usable,),
)
