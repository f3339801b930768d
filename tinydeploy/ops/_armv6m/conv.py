"""Turn a convolution into the stream that the Armv6-M kernel reads.

The core multiplies 32 by 32 bits to 32: multipliers are cut into pieces whose products with a
sum fit, and how many pieces that takes follows from the sums that the weights allow.
"""

from __future__ import annotations

import numpy as np

from tinydeploy.ops._armv7m.conv import (
    Sums,
    convolution_sums,
    kernels,
    pads,
    possible,
    scratch_of,
)
from tinydeploy.ops.base import Array, Site

# Bits of the pieces of a multiplier but the highest, by their number.
_PIECE_BITS = {3: 10, 4: 8}


def _fits_pieces(sums: Sums, pieces: int) -> bool:
    """Tell whether no product, nor what is added to it, leaves 32 bits."""
    kept = _PIECE_BITS[pieces] * (pieces - 1)
    largest = int(np.abs(sums.multiplier).max()) >> kept
    biggest = max(largest + 1, 1 << _PIECE_BITS[pieces]) * (sums.largest + 1)
    constant = 257 << int(31 - kept + sums.shift.max() - 1)
    rounding = 1 << (32 - kept)
    return biggest + constant + rounding < 1 << 31


def pieces_of(sums: Sums) -> int | None:
    """Return the least number of pieces of the multipliers that works, None when none does."""
    return next((n for n in _PIECE_BITS if _fits_pieces(sums, n)), None)


def fits(sums: Sums, operator: str, site: Site) -> bool:
    """Tell whether sums can be scaled in pieces; biases leave five bits for the shift."""
    return (
        not site.profile.rounds_once(operator)
        and bool((sums.shift >= 1).all())
        and bool((sums.shift < 20).all())
        and bool((np.abs(sums.bias) < 1 << 26).all())
        and pieces_of(sums) is not None
    )


def accepts(site: Site) -> bool:
    if site.isa != "armv6-m" or not possible(site):
        return False
    return fits(convolution_sums(site), "CONV_2D", site)


def constants(site: Site) -> dict[str, int]:
    sums = convolution_sums(site)
    return {
        "sign": int(sums.signed),
        "clamp": int(sums.clamped),
        "wide": int(site.optimize == "speed"),
        "pads": pads(site),
        "pieces": pieces_of(sums) or 0,
    }


def stream_of(sums: Sums, wide: bool) -> Array:
    """Return the stream: per channel bias and shift, weights, multiplier."""
    weights = np.pad(sums.weights, [(0, 0), (0, -sums.weights.shape[1] % 4)])
    parts = []
    for c in range(len(sums.bias)):
        parts.append(np.array(sums.bias[c] << 5 | sums.shift[c], "<i4").tobytes())
        parts.append(weights[c].astype("<i4" if wide else "i1").tobytes())
        parts.append(np.array(sums.multiplier[c], "<i4").tobytes())
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


CONVOLUTIONS = kernels(
    "armv6m/conv_2d",
    "td_conv_2d_armv6m",
    accepts,
    constants,
    stream_of,
    scratch=lambda site: scratch_of(site, 16, 4),
)
