"""Turn filters into streams of two-field words that RV32 kernels multiply two at a time.

A word holds the weights of two output channels, w0 + w1 * 2^16; one multiplication by an
activation adds to both sums. The low field must stay within int16, so the sum over k is cut into
chunks for which the known weights prove it for every activation in -128..127.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops.base import Array

BIAS = 0x8000  # added to a chunk's sum, so that the low field never borrows from the high one
MAX_CHUNK = 16  # terms that the unrolled loop of the assembly holds
MAX_SUM = 2**29  # accumulators must stay below this to be multiplied by 4, unless nothing varies
MAX_RIGHT_SHIFT = 21  # keeps output zero point << (shift + 1) and the sum below 2^30


@dataclass(frozen=True, slots=True)
class Scaling:
    """Hold out = (high(4 * acc * multiplier) + addend) >> shift, per channel.

    With acc * multiplier / 2^31 = y, gemmlowp's two roundings floor(y + 1/2) and
    floor((. + 2^(e-1)) / 2^e) are one floor of a linear function, whose constant is an integer
    when the product is taken at 2^-30: addend = 2^e + 1 + (zero_point << (e + 1)), shift = e + 1.
    Halves away from zero, for outputs below the zero point, take one more unit: `signed`.
    """

    multiplier: Array  # int32
    addend: Array  # int32
    shift: Array  # int32
    signed: bool
    nudge: int = 0  # 1 with two roundings
    half: int = 0  # 1 + 2 * zero point

    @property
    def compact(self) -> bool:
        """Tell whether each addend is half * 2^e, plus nudge where e > 0, with e = shift - 1.

        Only channels that are the same whatever their input may have another one.
        """
        e = self.shift.astype(np.int64) - 1
        return bool((self.addend == (self.half << e) + np.where(e > 0, self.nudge, 0)).all())

    @property
    def exponents(self) -> Array:
        """Return e of each channel as int8."""
        return (self.shift - 1).astype(np.int8)


def scaling(
    multiplier: Array, shift: Array, low: Array, high: Array, out_zero: int, clamp: tuple[int, int],
    single: bool,
) -> Scaling | None:  # fmt: skip
    """Return the scaling of channels whose accumulators lie in low..high, None if not exact."""
    if (np.maximum(np.abs(low), np.abs(high)) >= 2**31).any():
        return None
    m, a, s = multiplier.astype(np.int64), np.zeros(len(low), np.int64), np.ones(len(low), np.int64)
    signed = clamp[0] < out_zero and not single
    both = [requantize(x, multiplier, shift, single=single).tolist() for x in (low, high)]
    for c, ends in enumerate(zip(*both, strict=True)):
        e = -int(shift[c])
        if ends[0] == ends[1]:  # one value whatever the sum: a channel that is dead or nearly so
            m[c], s[c] = 0, 2
            at_zero = int(np.clip(out_zero, *clamp))
            if int(np.clip(ends[0] + out_zero, *clamp)) == at_zero:
                a[c] = (0 if single else 1) + ((1 + 2 * out_zero) << 1)
                continue
            # In a signed tile a negative sum subtracts 2: start one step above that.
            a[c] = ((ends[0] + out_zero) << 2) + 2
            if not -(1 << 20) < a[c] < 1 << 20:
                return None
            continue
        large = max(abs(int(low[c])), abs(int(high[c]))) >= MAX_SUM
        if large or e < 0 or e > MAX_RIGHT_SHIFT or (e == 0 and signed):
            return None
        rounding = (1 << e) if single else (1 << e) + 1 if e else 1
        a[c], s[c] = rounding + (out_zero << (e + 1)), e + 1
    return Scaling(
        m.astype(np.int32), a.astype(np.int32), s.astype(np.int32), signed,
        0 if single else 1, 1 + 2 * out_zero,
    )  # fmt: skip


def bounds(weights: Array, start: Array) -> tuple[Array, Array]:
    """Return the range of start + sum(weights * x) per row of weights, x in -128..127."""
    w = weights.reshape(len(start), -1).astype(np.int64)
    positive, negative = np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)
    return (
        start.astype(np.int64) - 128 * positive + 127 * negative,
        start.astype(np.int64) + 127 * positive - 128 * negative,
    )


def chunks(weights: Array, segments: list[int], most: int = MAX_CHUNK) -> list[int]:
    """Cut each segment of k into the fewest chunks of up to `most`; weights are [channels, k].

    Greedy is optimal: a part of a chunk that fits, fits.
    """
    w = weights.astype(np.int64)
    high = 127 * np.maximum(w, 0) - 128 * np.minimum(w, 0)
    low = 128 * np.maximum(w, 0) - 127 * np.minimum(w, 0)
    result = []
    for begin, end in pairwise([0, *np.cumsum(segments)]):
        k = int(begin)
        while k < end:
            top, bottom = high[:, k].copy(), low[:, k].copy()
            n = 1
            while k + n < end and n < most:
                top, bottom = top + high[:, k + n], bottom + low[:, k + n]
                if top.max() > 32767 or bottom.max() > 32768:
                    break
                n += 1
            result.append(n)
            k += n
    return result


def fields(weights: Array) -> Array:
    """Return words [k, channels / 2] of int8 weights [channels, k], channels even."""
    w = weights.astype(np.int64)
    words = w[0::2] + (w[1::2] << 16)
    return np.ascontiguousarray(words.T).astype(np.uint32).view(np.int32)


def starts(bias: Array, count: int) -> Array:
    """Return, per pair of channels, what the sum of whole words and the sum of high fields begin
    with: bias0 + sum0 is left of the first when (second << 16) is subtracted, modulo 2^32.

    `count` is the number of chunks whose BIAS is summed with the whole words.
    """
    b = bias.astype(np.int64)
    first = b[0::2] + (b[1::2] << 16) - count * BIAS
    pairs = np.stack([first, b[1::2]], axis=1).reshape(-1)
    return (pairs & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
