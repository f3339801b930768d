"""Turn functions into int16 tables that are interpolated linearly, bit for bit as LiteRT does.

templates/ops/softmax_16.c.j2 and logistic_16.c.j2 hold the C twins of the lookups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import (
    IntArray,
    quantize_multiplier,
    requantize_double,
    rounded_away,
)

Floats = NDArray[Any]

_STEPS = 512
_LOW, _HIGH = -(2**15), 2**15 - 1


def table_of(
    function: Callable[[Floats], Floats],
    scale: float,
    zero_point: int,
    output_scale: float = 2 / 65535,
    kind: type[np.floating[Any]] = np.float64,
) -> NDArray[np.int16]:
    """Return a function's int16 values at 513 stored int16 arguments, 128 steps apart.

    Each is moved by half the error that interpolation makes in the middle of its step. TensorFlow
    Lite, kernels/internal/common.h, LUTPopulateInt16, where SOFTMAX asks for float64 and operators
    of one value (EXP, GELU) for float32. The output's zero point is 0.
    """
    first, last = (kind(scale) * kind(v - zero_point) for v in (_LOW, _HIGH))
    step = (last - first) / kind(_STEPS)
    unit = kind(2**16) / (kind(output_scale) * kind(_HIGH) - kind(output_scale) * kind(_LOW))

    def stored(x: Floats) -> Floats:
        # A host's float32 functions may differ in the last bit between libraries.
        real: Floats = function(x.astype(np.float64)).astype(kind) * unit
        return real.astype(np.float64)

    x = first + np.arange(_STEPS + 1, dtype=kind) * step
    value = rounded_away(stored(x[:-1]))
    error = rounded_away((stored(x[1:]) + value) / 2) - rounded_away(
        stored(x[:-1] + step / kind(2))
    )
    entries = np.append(value - rounded_away(error / 2), rounded_away(stored(np.array([last]))))
    table: NDArray[np.int16] = np.clip(entries, _LOW, _HIGH).astype(np.int16)
    return table


def interpolated(table: NDArray[np.int16], x: IntArray) -> IntArray:
    """Return a table's value at int16 arguments (TensorFlow Lite, LUTLookup)."""
    index, entries = 256 + (x >> 7), table.astype(np.int64)
    slope = entries[index + 1] - entries[index]
    found: IntArray = entries[index] + ((slope * (x & 127) + 64) >> 7)
    return found


@cache
def exponentials() -> NDArray[np.int16]:
    """Return exp over -10 to 0."""
    return table_of(np.exp, 10 / 65535, _HIGH)


@cache
def reciprocals() -> NDArray[np.int16]:
    """Return 1 / (1 + x) over 0 to 1."""
    return table_of(lambda x: 1 / (1 + x), 1 / 65535, _LOW)


def softmax_scale(scale: float, beta: float, kind: type[np.floating[Any]]) -> tuple[int, int]:
    """Return (multiplier, shift) that turn distances into arguments of `exponentials`.

    kind: of the product of scale and beta, which are float32.
    """
    product = kind(np.float32(scale)) * kind(np.float32(beta))
    return quantize_multiplier(float(product) / (10.0 / 65535.0))


def softmax_row(values: IntArray, multiplier: int, shift: int) -> IntArray:
    """Return the int16 softmax (scale 2^-15) over the last axis.

    TensorFlow Lite, reference/softmax.h, SoftmaxInt16.
    """
    distance = values - values.max(axis=-1, keepdims=True)
    place = np.clip(requantize_double(distance, multiplier, shift) + _HIGH, _LOW, _HIGH)
    powers = interpolated(exponentials(), place)
    total = powers.sum(axis=-1, keepdims=True)
    headroom = 31 - np.frompyfunc(int.bit_length, 1, 1)(total.astype(object)).astype(np.int64)
    mantissa = ((total << headroom) + (1 << 13)) >> 14
    share = interpolated(reciprocals(), np.clip(mantissa - (1 << 15) - (1 << 16), _LOW, _HIGH))
    right = 30 - headroom
    found: IntArray = np.clip((powers * share + (np.int64(1) << (right - 1))) >> right, 0, _HIGH)
    return found


@cache
def sigmoids() -> NDArray[np.uint16]:
    """Return the logistic function of 0, 1/24, ..., 255/24 in Q0.16.

    Each is moved by half the error that interpolation makes in the middle of its step; the values
    are those of TensorFlow Lite's sigmoid_table_uint16.
    """
    here, middle, after = (1 / (1 + np.exp(-(np.arange(256) + d) / 24)) for d in (0, 0.5, 1))
    table = np.rint(65536 * (here - ((here + after) / 2 - middle) / 2))
    table[-1] += 1
    return table.astype(np.uint16)


def sigmoid_scale(scale: float) -> tuple[int, int]:
    """Return (multiplier, right shift) that turn stored values into 1/12288ths.

    TensorFlow Lite, activations.cc, SigmoidPrepare.
    """
    if scale == 2.0**-12:
        return 3, 0
    real, shift = float(np.float32(scale)) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and shift <= 30:
        real, shift = real * 2.0, shift + 1
    return int(real), shift


def logistic_int16(values: IntArray, multiplier: int, shift: int) -> IntArray:
    """Return the int16 logistic function (scale 2^-15) of stored values with zero point 0.

    TensorFlow Lite, reference_integer_ops::Logistic of int16.
    """
    table = sigmoids().astype(np.int64)
    half = 1 << (shift - 1) if shift else 0
    x = (values * multiplier + half) >> shift
    index = np.abs(x) >> 9
    inside = np.minimum(index, 254)
    between = (table[inside] << 9) + (np.abs(x) & 511) * (table[inside + 1] - table[inside])
    share = np.where(index >= 255, 0x7FFF << 10, between)
    found: IntArray = np.where(x >= 0, share + (1 << 9), (1 << 25) - share + (1 << 9) - 1) >> 10
    return found
