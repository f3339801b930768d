"""Turn multipliers and shifts into the constants of two- to four-instruction requantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ops.base import Site

Array = NDArray[Any]

# Right shifts of the uniform form. Each covers seven consecutive exponents of the channels.
UNIFORM_SHIFTS = (11, 13)


@dataclass(frozen=True, slots=True)
class Requant:
    """Hold how accumulators become int8 on a core with SMMLA and SSAT.

    uniform: the shift S of `SSAT #8, SMMLA(acc * scale, m, C) asr S`, or 0 for the general form
    `t = SMMLAR(2 acc, m, C); t += acc asr 31; SSAT #8, t asr e`, both rounded like gemmlowp.
    scale_log2: log2 of the factor that accumulators need, per channel.
    right: e of the general form, per channel.
    """

    uniform: int
    multiplier: Array
    addend: Array
    scale_log2: Array
    right: Array


def is_dsp(site: Site) -> bool:
    """Tell whether a core has the DSP instructions but no vector extension to be preferred."""
    return site.isa in ("armv7e-m", "armv8-m") and "dsp" in site.features


def bound_of(weights: Array, bias: Array) -> Array:
    """Return the largest magnitude an accumulator can have, weights [channels, taps], any int8 x.

    Partial sums, in any order, stay below it too.
    """
    bound: Array = np.abs(bias.astype(np.int64)) + 128 * np.abs(weights.astype(np.int64)).sum(1)
    return bound


def requant(
    bound: Array,
    largest_weight: Array,
    multiplier: Array,
    shift: Array,
    zero_point: int,
    single: bool,
    uniform_allowed: bool = True,
) -> Requant | None:
    """Return the constants, the uniform form if it is exact here, or None if neither is.

    `bound` limits |acc| per channel and `largest_weight` |w|, which must fit 16 bits once scaled.
    """
    m, e = multiplier.astype(np.int64), -shift.astype(np.int64)
    # A channel whose scaled sums all round to nothing is the zero point; its exponent is free.
    top = (bound * m + (1 << 30)) >> 31
    nothing = (m == 0) | ((e >= 2) & (top < (np.int64(1) << np.maximum(e - 1, 0))))
    m = np.where(nothing, 0, m)
    if uniform_allowed and (single or zero_point == -128):
        for s in UNIFORM_SHIFTS:
            # Single rounding scales by 2^d with s = e + d - 1; double by 2^(1+d) with s = e + d.
            power = np.where(nothing, 2, s + 1 - e)
            if (
                (power >= (0 if single else 2)).all()
                and (power <= 8).all()
                and ((largest_weight << np.maximum(power, 0)) < 32768).all()
                and ((bound << np.maximum(power, 0)) < 2**31 - 2**24).all()
            ):
                addend = (1 << (s - 1)) + (zero_point << s) + np.zeros_like(m)
                if not single:
                    addend = addend + np.where(nothing, 0, 1 << np.maximum(power - 2, 0))
                return Requant(s, m, addend, power, np.zeros_like(m))
    if single:
        return None
    e = np.where(nothing, 1, e)
    # |2 acc| and |high product + addend| must stay inside int32.
    if (e < 1).any() or (e > 21).any() or (bound >= 2**29).any():
        return None
    addend = (np.int64(1) << (e - 1)) + (np.int64(zero_point) << e)
    return Requant(0, m, addend, np.ones_like(m), e)
