"""Turn real multipliers into integers, and requantise accumulators with them, in numpy.

The functions repeat the definitions of gemmlowp's fixed-point library and of TensorFlow Lite's
`quantization_util` and `common.h`; templates/lib/td_fixedpoint.h holds their C twins.
All arrays are int64 and hold values of the int32 range.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return (multiplier, shift) with real = multiplier / 2^31 * 2^shift, multiplier in Q0.31.

    TensorFlow Lite, `QuantizeMultiplier`: round half away from zero; below 2^-31 it is 0.
    Raises ValueError for a negative, infinite or too large real number.
    """
    if real == 0.0:
        return 0, 0
    if not math.isfinite(real) or real < 0:
        raise ValueError(f"multiplier {real} is not a positive finite number")
    fraction, shift = math.frexp(real)
    scaled = math.floor(fraction * 2**31 + 0.5)
    if scaled == 2**31:
        scaled //= 2
        shift += 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise ValueError(f"multiplier {real} is 2^30 or more")
    return scaled, shift


def wrap32(x: Any) -> IntArray:
    """Reduce to the int32 range modulo 2^32, as a C cast through uint32_t does."""
    wrapped: IntArray = ((np.asarray(x, np.int64) + 2**31) & 0xFFFFFFFF) - 2**31
    return wrapped


def saturating_rounding_doubling_high_mul(a: IntArray, b: Any) -> IntArray:
    """Return round(a * b / 2^31), halves away from zero on the nudged product (gemmlowp)."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    total = product + nudge
    # C divides towards zero, numpy shifts towards minus infinity.
    high = np.where(total >= 0, total >> 31, -((-total) >> 31))
    saturated: IntArray = np.minimum(high, INT32_MAX)
    return saturated


def rounding_divide_by_power_of_two(x: IntArray, exponent: Any) -> IntArray:
    """Return x / 2^exponent, halves away from zero (gemmlowp RoundingDivideByPOT)."""
    x = np.asarray(x, np.int64)
    exponent = np.asarray(exponent, np.int64)
    mask = (np.int64(1) << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (x < 0)
    rounded: IntArray = (x >> exponent) + (remainder > threshold)
    return rounded


def requantize_double(x: IntArray, multiplier: Any, shift: Any) -> IntArray:
    """Scale by multiplier * 2^(shift - 31), rounding twice.

    TensorFlow Lite, MultiplyByQuantizedMultiplier.
    """
    shift = np.asarray(shift, np.int64)
    left = np.maximum(shift, 0)
    right = np.maximum(-shift, 0)
    return rounding_divide_by_power_of_two(
        saturating_rounding_doubling_high_mul(wrap32(np.asarray(x) << left), multiplier), right
    )


def requantize_single(x: IntArray, multiplier: Any, shift: Any) -> IntArray:
    """Scale by multiplier * 2^(shift - 31), rounding once.

    TensorFlow Lite, MultiplyByQuantizedMultiplier built with TFLITE_SINGLE_ROUNDING.
    """
    total_shift = 31 - np.asarray(shift, np.int64)
    rounding = np.int64(1) << (total_shift - 1)
    product = np.asarray(x, np.int64) * np.asarray(multiplier, np.int64)
    result: IntArray = np.clip((product + rounding) >> total_shift, INT32_MIN, INT32_MAX)
    return result


def requantize(x: IntArray, multiplier: Any, shift: Any, *, single: bool) -> IntArray:
    """Scale accumulators to the output's scale with the rounding that the profile asks for."""
    return (requantize_single if single else requantize_double)(x, multiplier, shift)


def reduced_multiplier(multiplier: NDArray[Any]) -> NDArray[np.int16]:
    """Return multipliers in Q0.31 as 15-bit ones in Q0.15, halves away from zero, below 1.

    TensorFlow Lite, MultiplyByQuantizedMultiplier of int64.
    """
    m = np.asarray(multiplier, np.int64)
    return np.where(m < 0x7FFF0000, (m + (1 << 15)) >> 16, 0x7FFF).astype(np.int16)


def requantize_wide(x: IntArray, multiplier: Any, shift: Any) -> IntArray:
    """Scale sums of up to 48 bits by multiplier * 2^(shift - 15), rounding once.

    TensorFlow Lite, MultiplyByQuantizedMultiplier of int64, with its reduced multiplier. The shift
    is at most 7; a result beyond int32 wraps.
    """
    total_shift = 15 - np.asarray(shift, np.int64)
    product = np.asarray(x, np.int64) * np.asarray(multiplier, np.int64)
    return wrap32((product + (np.int64(1) << (total_shift - 1))) >> total_shift)


def requantize_wide_once(x: IntArray, multiplier: Any, shift: Any) -> IntArray:
    """Scale sums of up to 48 bits by multiplier * 2^(shift - 31), halves away from 0, saturated.

    The product of up to 79 bits is computed in two parts. The shift is at most 7.
    """
    x, m = np.asarray(x, np.int64), np.asarray(multiplier, np.int64)
    rest = 15 - np.asarray(shift, np.int64)
    size = np.abs(x)
    upper = (size >> 16) * m + (((size & 0xFFFF) * m) >> 16)
    rounded = (upper + (np.int64(1) << (rest - 1))) >> rest
    result: IntArray = np.clip(np.where(x < 0, -rounded, rounded), INT32_MIN, INT32_MAX)
    return result


def rounded_away(x: NDArray[Any]) -> NDArray[Any]:
    """Return float64 numbers rounded, halves away from zero (TensorFlow Lite `TfLiteRound`)."""
    rounded: NDArray[Any] = np.trunc(x + np.copysign(0.5, x))
    return rounded


def quantize_float(x: NDArray[Any], scale: float, zero_point: int, dtype: str) -> NDArray[Any]:
    """Return float32 numbers as stored integers: round(x / scale) half away from zero, clamped.

    TensorFlow Lite `AffineQuantize`: the division is float32; NaN becomes the zero point.
    """
    info = np.iinfo(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (np.asarray(x, np.float32) / np.float32(scale)).astype(np.float64)
    scaled = np.where(np.isnan(scaled), 0.0, scaled)
    rounded = rounded_away(scaled)
    stored: NDArray[Any] = np.clip(rounded + zero_point, info.min, info.max).astype(dtype)
    return stored


def dequantize(q: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.float32]:
    """Return stored integers as float32: scale * (q - zero_point), one rounding."""
    return (np.float32(scale) * (q.astype(np.int32) - zero_point).astype(np.float32)).astype(
        np.float32
    )
