"""Turn a piecewise-linear table into integers, and evaluate them as the generated C does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.lut.functions import Floats, Function
from tinydeploy.numerics.lut.piecewise import Piecewise

Ints = NDArray[np.int64]
# |slope| < 2^15 and |x| <= 2^15 leave this much for the intercept in 32 bits.
_INTERCEPT_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class IntegerTable:
    """Hold segments as integers: y = (slope * x + intercept) >> shift, clamped to `bits` bits.

    A stored x means x * input_scale, a stored y means y * output_scale. Half a step is already
    part of the intercepts, so that the shift rounds.
    """

    bits: int
    input_scale: float
    output_scale: float
    shift: int
    breakpoints: Ints  # [n - 1], of `bits` bits
    slopes: Ints  # [n], int16
    intercepts: Ints  # [n], int32

    def __call__(self, x: Ints) -> Ints:
        k = np.searchsorted(self.breakpoints, x, "right")
        total = (self.slopes[k] * x + self.intercepts[k]) >> self.shift
        limit = 1 << (self.bits - 1)
        result: Ints = np.clip(total, -limit, limit - 1)
        return result


def power_of_two_scale(largest: float, bits: int) -> float:
    """Return the least power of two by which numbers up to a size are stored in so many bits.

    The size itself may saturate by one step: 4 is stored as 127 / 32.
    """
    return 2.0 ** math.ceil(math.log2(max(largest, 2.0**-40)) - (bits - 1) - 1e-9)


def scales(function: Function, bits: int) -> tuple[float, float]:
    """Return scales of input and output, powers of two that the range and the values fit."""
    x = np.linspace(function.low, function.high, 4097)
    largest = float(np.abs(function.of(x)).max())
    return power_of_two_scale(max(abs(function.low), abs(function.high)), bits), power_of_two_scale(
        largest, bits
    )


def integers(table: Piecewise, input_scale: float, output_scale: float, bits: int) -> IntegerTable:
    """Return a table with as many fractional bits as slopes and intercepts have room for.

    Raises ValueError where they have none.
    """
    slopes = table.slopes * (input_scale / output_scale)
    intercepts = table.intercepts / output_scale
    for shift in range(15, 0, -1):
        a = np.round(slopes * 2.0**shift)
        b = np.round(intercepts * 2.0**shift) + 2.0 ** (shift - 1)
        if np.abs(a).max() < 1 << 15 and np.abs(b).max() < _INTERCEPT_LIMIT:
            limit = 1 << (bits - 1)
            places = np.clip(np.ceil(table.breakpoints / input_scale - 1e-9), -limit, limit - 1)
            return IntegerTable(
                bits, input_scale, output_scale, shift, places.astype(np.int64),
                a.astype(np.int64), b.astype(np.int64),
            )  # fmt: skip
    raise ValueError(f"slopes up to {float(np.abs(slopes).max()):.3g} steps per step")


def scaled_by_powers(table: Piecewise, function: Function, x: Floats) -> Floats:
    """Evaluate a table of DIV or RSQRT beyond its range: f(2^k x) = 2^(e k) f(x).

    Inputs are positive; k is even for RSQRT, so that the factor is a power of two.
    """
    assert function.exponent is not None
    unit = round(-1 / function.exponent)
    k = np.floor((np.log2(x) - math.log2(function.high / 2.0**unit)) / unit) * unit
    result: Floats = 2.0 ** (function.exponent * k) * table(x / 2.0**k)
    return result
