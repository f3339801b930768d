"""Turn the constants of requantisation into fewer bytes that kernels expand while they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ops._dsp.requant import Requant

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Compact:
    """Hold constants of which only bias and multiplier take a word per channel.

    The addend of the uniform form is base + inner, that of the general one (base << right) >> 1.
    low, high: the shift of a channel's sum, for the lower and the upper half of a pair, whose sum
    arrives multiplied by 256. The uniform form moves the lower one left, the upper one right.
    """

    base: int
    bias: Array
    multiplier: Array
    inner: Array
    low: Array
    high: Array


def compact_form(r: Requant, bias: Array, zero_point: int, single: bool) -> Compact:
    """Return the constants; channels that always give one value get it through their bias."""
    right = np.where(r.constant, r.uniform or 1, r.right)
    value = r.addend >> (r.uniform or right)
    # With a multiplier of 1/2 the shifts below make the sum (value - zero point) << right.
    up = r.uniform or (3 if single else 2)
    bias = np.where(r.constant, (value - zero_point) << up, bias)
    multiplier = np.where(r.constant, 2**30, r.multiplier)
    if not r.uniform:
        zero = np.zeros_like(r.right)
        return Compact(2 * zero_point + 1, bias, multiplier, zero, r.right, r.right)
    base = (1 << (r.uniform - 1)) + (zero_point << r.uniform)
    inner = zero_or_nudge(r, single)
    return Compact(base, bias, multiplier, inner, r.scale_log2, 8 - r.scale_log2)


def zero_or_nudge(r: Requant, single: bool) -> Array:
    """Return the share of the addend that stands for the first of two roundings."""
    nudge: Array = (np.int64(1) << r.scale_log2) >> 2
    return np.zeros_like(nudge) if single else nudge
