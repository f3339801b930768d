"""Compute exp, logistic and reciprocals in 32-bit fixed point, bit for bit as gemmlowp does.

gemmlowp, fixedpoint/fixedpoint.h. A value with `bits` integer bits is raw / 2^(31 - bits).
Used at generation time to fill tables; templates/lib/td_fixedpoint.h has what runs on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tinydeploy.numerics.fixedpoint import (
    INT32_MAX,
    INT32_MIN,
    IntArray,
    quantize_multiplier,
    requantize_double,
    rounding_divide_by_power_of_two,
    wrap32,
)
from tinydeploy.numerics.fixedpoint import saturating_rounding_doubling_high_mul as mul

# exp(-2^k) in Q0.31 for k = -2 .. 4.
_EXP_OF_POWER = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
_ONE = INT32_MAX


def _saturating_shift_left(x: IntArray, amount: int) -> IntArray:
    shifted: IntArray = np.clip(np.asarray(x, np.int64) << amount, INT32_MIN, INT32_MAX)
    return shifted


def _exp_between_minus_quarter_and_zero(a: IntArray) -> IntArray:
    """Taylor expansion of exp around -1/8, for Q0.31 arguments in [-1/4, 0)."""
    exp_minus_eighth, third = 1895147668, 715827883
    x = a + (1 << 28)
    x2 = mul(x, x)
    x3 = mul(x2, x)
    x4_over_4 = rounding_divide_by_power_of_two(mul(x2, x2), 2)
    tail = rounding_divide_by_power_of_two(wrap32(mul(wrap32(x4_over_4 + x3), third) + x2), 1)
    return wrap32(exp_minus_eighth + mul(wrap32(x + tail), exp_minus_eighth))


def exp_on_negative_values(a: IntArray, bits: int) -> IntArray:
    """Return exp(a) in Q0.31 for a <= 0 with `bits` integer bits (at most 5)."""
    a = np.asarray(a, np.int64)
    fraction = 31 - bits
    quarter = 1 << (fraction - 2)
    a_mod = (a & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_zero(_saturating_shift_left(a_mod, bits))
    remainder = wrap32(a_mod - a)
    for power, factor in _EXP_OF_POWER.items():
        if bits > power:
            mask = 1 << (fraction + power)
            result = np.where(remainder & mask, mul(result, factor), result)
    return np.where(a == 0, _ONE, result)


def _two_over_one_plus_x(a: IntArray) -> IntArray:
    """Return 2 / (1 + a) in Q2.29 for a in [0, 1) in Q0.31: three Newton-Raphson steps."""
    total = np.asarray(a, np.int64) + _ONE
    half_denominator = (total + 1) >> 1
    x = wrap32(1515870810 + mul(half_denominator, -1010580540))
    for _ in range(3):
        error = wrap32((1 << 29) - mul(half_denominator, x))
        x = wrap32(x + _saturating_shift_left(mul(x, error), 2))
    return x


def one_over_one_plus_x(a: IntArray) -> IntArray:
    """Return 1 / (1 + a) in Q0.31 for a in [0, 1) in Q0.31."""
    return _saturating_shift_left(_two_over_one_plus_x(a), 1)


def tanh(a: IntArray, bits: int) -> IntArray:
    """Return tanh(a) in Q0.31 for a with `bits` integer bits: (1 - e) / (1 + e), e = exp(-2|a|)."""
    a = np.asarray(a, np.int64)
    power = exp_on_negative_values(-np.abs(a), bits + 1)
    size = _saturating_shift_left(_two_over_one_plus_x(power) - (1 << 29), 2)
    return np.where(a == 0, 0, np.where(a < 0, -size, size))


def logistic(a: IntArray, bits: int) -> IntArray:
    """Return 1 / (1 + exp(-a)) in Q0.31 for a with `bits` integer bits."""
    a = np.asarray(a, np.int64)
    positive = one_over_one_plus_x(exp_on_negative_values(-np.abs(a), bits))
    return np.where(a == 0, 1 << 30, np.where(a > 0, positive, _ONE - positive))


def input_radius(bits: int, left_shift: int) -> int:
    """Return the largest input that a left shift keeps in range (TFLite CalculateInputRadius)."""
    return math.floor(((1 << bits) - 1) * (1 << (31 - bits)) / 2.0**left_shift)


def softmax_exponentials(scale: float, beta: float) -> IntArray:
    """Return exp(-beta * scale * d) in Q0.31 for d = 0, 1, ..., 255; 0 where TFLite skips d.

    TensorFlow Lite, PreprocessSoftmaxScaling and reference_ops::Softmax with 5 integer bits.
    """
    real = float(beta) * float(scale) * (1 << 26)
    distance = np.arange(256, dtype=np.int64)
    if real >= 2.0**30:
        return np.where(distance == 0, _ONE, 0)  # the radius below would be 0
    multiplier, left_shift = quantize_multiplier(real)
    radius = input_radius(5, left_shift)
    used = distance <= radius
    rescaled = requantize_double(np.where(used, -distance, 0), multiplier, left_shift)
    return np.where(used, exp_on_negative_values(rescaled, 5), 0)


def softmax_row(values: IntArray, exponentials: IntArray) -> IntArray:
    """Return the int8 softmax (scale 1/256, zero point -128) over the last axis."""
    values = np.asarray(values, np.int64)
    exp = exponentials[values.max(axis=-1, keepdims=True) - values]
    # Q0.31 to Q12.19 before summing.
    total = rounding_divide_by_power_of_two(exp, 12).sum(axis=-1, keepdims=True)
    headroom = 32 - np.frompyfunc(int.bit_length, 1, 1)(total.astype(object)).astype(np.int64)
    mantissa = ((total << headroom) & 0xFFFFFFFF) - 2**31
    reciprocal = one_over_one_plus_x(mantissa)
    exponent = 12 - headroom + 31 - 8
    result = rounding_divide_by_power_of_two(mul(reciprocal, exp), exponent) - 128
    return np.clip(result, -128, 127)


def _int8_function(
    function: Callable[[IntArray, int], IntArray],
    values: IntArray,
    scale: float,
    zero_point: int,
    output_bits: int,
    output_zero_point: int,
) -> IntArray:
    """Return a function with 4 integer bits of stored int8 values, saturated beyond its radius."""
    multiplier, left_shift = quantize_multiplier(float(scale) * (1 << 27))
    radius = input_radius(4, left_shift)
    x = np.asarray(values, np.int64) - zero_point
    inside = np.where(np.abs(x) < radius, x, 0)
    q0 = function(requantize_double(inside, multiplier, left_shift), 4)
    rounded = rounding_divide_by_power_of_two(q0, 31 - output_bits) + output_zero_point
    result = np.clip(rounded, -128, 127)
    return np.where(x <= -radius, -128, np.where(x >= radius, 127, result))


def logistic_int8(values: IntArray, scale: float, zero_point: int) -> IntArray:
    """Return the int8 logistic function (scale 1/256, zero point -128) of stored int8 values.

    TensorFlow Lite, reference_integer_ops::Logistic with 4 integer bits.
    """
    return _int8_function(logistic, values, scale, zero_point, 8, -128)


def tanh_int8(values: IntArray, scale: float, zero_point: int) -> IntArray:
    """Return the int8 hyperbolic tangent (scale 1/128, zero point 0) of stored int8 values.

    TensorFlow Lite, reference_integer_ops::Tanh with 4 integer bits.
    """
    return _int8_function(tanh, values, scale, zero_point, 7, 0)


def inverse_square_root(value: int) -> tuple[int, int]:
    """Return (multiplier, shift) with 1 / sqrt(value) = multiplier / 2^31 * 2^shift, value > 0.

    TensorFlow Lite, GetInvSqrtQuantizedMultiplierExp: five Newton-Raphson steps from 1 with 3
    integer bits.
    """
    if value <= 1:
        return INT32_MAX, 0
    shift = 11
    while value >= 1 << 29:
        value //= 4
        shift += 1
    pairs = (31 - value.bit_length()) // 2 - 1
    shift -= pairs
    fixed = np.array((value << 2 * pairs) >> 1, np.int64)
    half = rounding_divide_by_power_of_two(fixed, 1)
    x = np.array(1 << 28, np.int64)
    for _ in range(5):
        cube = _saturating_shift_left(mul(mul(x, x), x), 6)
        x = _saturating_shift_left(wrap32(mul(np.array(3 << 27), x) - mul(half, cube)), 3)
    root = int(mul(x, 1518500250))  # sqrt(1/2) in Q0.31
    return (root << -shift, 0) if shift < 0 else (root, -shift)
