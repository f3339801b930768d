"""Turn multipliers and shifts into the constants of two- to four-instruction requantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops.base import Site

Array = NDArray[Any]

# Right shifts of the uniform form. Each covers seven consecutive exponents of the channels.
UNIFORM_SHIFTS = (11, 13)


@dataclass(frozen=True, slots=True)
class Requant:
    """Hold how accumulators become int8 on a core with SMMLA and SSAT.

    uniform: the shift S of `SSAT #8, SMMLA(acc * scale, m, C) asr S`, or 0 for the general form
    `t = SMMLAR(2 acc, m, C); t += acc asr 31; SSAT #8, t asr e`, both rounded like gemmlowp, or
        with single rounding `SSAT #8, SMMLA(acc, m, C) asr e`.
    scale_log2: log2 of the factor that accumulators need, per channel.
    right: e of the general form, per channel.
    constant: channels whose weights and bias must be taken as 0.
    """

    uniform: int
    multiplier: Array
    addend: Array
    scale_log2: Array
    right: Array
    constant: Array


def is_dsp(site: Site) -> bool:
    """Tell whether a core has the DSP instructions but no vector extension to be preferred."""
    return site.isa in ("armv7e-m", "armv8-m") and "dsp" in site.features


def reach(weights: Array, bias: Array) -> tuple[Array, Array]:
    """Return the least and the greatest accumulator per channel, weights [channels, taps]."""
    w = weights.astype(np.int64)
    low = bias + np.where(w > 0, -128 * w, 127 * w).sum(axis=1)
    high = bias + np.where(w > 0, 127 * w, -128 * w).sum(axis=1)
    return low, high


def bound_of(weights: Array, bias: Array) -> Array:
    """Return what no partial sum exceeds in magnitude, in any order, per channel."""
    bound: Array = np.abs(bias.astype(np.int64)) + 128 * np.abs(weights.astype(np.int64)).sum(1)
    return bound


def requant(
    weights: Array,
    bias: Array,
    multiplier: Array,
    shift: Array,
    zero_point: int,
    single: bool,
    wide: bool = True,
    general: bool = False,
) -> Requant | None:
    """Return the constants, the uniform form if it is exact here, or None if neither is.

    weights [channels, taps]; with `wide` they must fit 16 bits once scaled. `general` leaves the
    uniform form out.
    """
    low, high = reach(weights, bias)
    if low.min() < -(2**31) or high.max() >= 2**31:
        return None
    ends = [
        np.clip(requantize(x, multiplier, shift, single=single) + zero_point, -128, 127)
        for x in (low, high)
    ]
    # A channel that always gives the same value needs no weights, and its exponent is free.
    constant = ends[0] == ends[1]
    value = ends[0]
    bound = np.where(constant, 0, bound_of(weights, bias))
    largest = np.where(constant, 0, np.abs(weights).max(axis=1)) if wide else np.zeros_like(bound)
    m = np.where(constant, 0, multiplier.astype(np.int64))
    e = np.where(constant, 1, -shift.astype(np.int64))
    if not general and (single or zero_point == -128):
        for s in UNIFORM_SHIFTS:
            # Single rounding scales by 2^d with s = e + d - 1; double by 2^(1+d) with s = e + d.
            power = np.where(constant, 2, s + 1 - e)
            usable = np.maximum(power, 0)
            if (
                (power >= (0 if single else 2)).all()
                and (power <= 8).all()
                and ((largest << usable) < 32768).all()
                and ((bound << usable) < 2**31 - 2**24).all()
            ):
                inner: Array = np.where(single, 0, np.int64(1) << np.maximum(power - 2, 0))
                addend: Array = (1 << (s - 1)) + (zero_point << s) + inner
                addend = np.where(constant, (1 << (s - 1)) + (value << s), addend)
                return Requant(s, m, addend, power, np.zeros_like(m), constant)
    if single:
        if (np.where(constant, 2, e) < 2).any() or (e > 22).any() or (bound >= 2**30).any():
            return None
        e = np.where(constant, 1, e - 1)
        addend = np.where(constant, (value << e) + 1, (zero_point << e) + (1 << (e - 1)))
        return Requant(0, m, addend, np.zeros_like(m), e, constant)
    # Without a second rounding there is no sign to add, which only the form for -128 leaves out.
    least = 0 if zero_point == -128 else 1
    # |2 acc| and |high product + addend| must stay inside int32.
    if (e < least).any() or (e > 21).any() or (bound >= 2**29).any():
        return None
    addend = ((np.int64(1) << e) >> 1) + (np.where(constant, value, zero_point) << e)
    return Requant(0, m, addend, np.ones_like(m), e, constant)


def pair(low: Array, high: Array) -> Array:
    """Return words that hold two signed halfwords each."""
    return (low & 0xFFFF) | ((high & 0xFFFF) << 16)
