"""Turn a convolution into the stream that the Armv6-M kernel reads.

The core multiplies 32 by 32 bits to 32: multipliers are cut into pieces whose products with a
sum fit, and how many pieces that takes follows from the sums that the weights allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._armv7m.conv import Sums, convolution_sums, whole
from tinydeploy.ops.base import Array, Kernel, Site

# Bits of the pieces of a multiplier but the highest, by their number.
_PIECE_BITS = {3: 10, 4: 8}


def _fits_pieces(sums: Sums, pieces: int) -> bool:
    """Tell whether no product, nor what is added to it, leaves 32 bits."""
    kept = _PIECE_BITS[pieces] * (pieces - 1)
    largest = int(np.abs(sums.multiplier).max()) >> kept
    biggest = max(largest + 1, 1 << _PIECE_BITS[pieces]) * (sums.largest + 1)
    shift = np.where(sums.multiplier == 0, 1, sums.shift)
    constant = 257 << int(31 - kept + shift.max() - 1)
    rounding = 1 << (32 - kept)
    return biggest + constant + rounding < 1 << 31


def pieces_of(sums: Sums) -> int | None:
    """Return the least number of pieces of the multipliers that works, None when none does."""
    return next((n for n in _PIECE_BITS if _fits_pieces(sums, n)), None)


def fits(sums: Sums, operator: str, site: Site) -> bool:
    """Tell whether sums can be scaled in pieces; biases leave five bits for the shift."""
    return (
        not site.profile.rounds_once(operator)
        and bool(((sums.shift >= 1) | (sums.multiplier == 0)).all())
        and bool((sums.shift < 20).all())
        and bool((np.abs(sums.bias) < 1 << 26).all())
        and pieces_of(sums) is not None
    )


def scaling(sums: Sums) -> tuple[Array, Array]:
    """Return (multipliers, shifts), shift 1 where the multiplier is 0."""
    return sums.multiplier, np.where(sums.multiplier == 0, 1, sums.shift)


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_conv_2d_armv6m_params."""

    in_w: int
    in_c: int
    out_w: int
    out_c: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_w: int
    pad_left: int
    in_zero: int
    x_step: int
    c_step: int
    zero_point: int
    clamp_min: int
    clamp_max: int
    stream: Array  # int32, per channel


def accepts(site: Site) -> bool:
    if site.isa != "armv6-m":
        return False
    call = site.call
    g = window.convolution(call)
    return (
        call.input(1).shape[3] == call.input().shape[3]
        and g.dilation_h == 1
        and g.out_h * g.out_w > 0
        and fits(convolution_sums(site), "CONV_2D", site)
    )


def constants(site: Site) -> dict[str, int]:
    sums, g = convolution_sums(site), window.convolution(site.call)
    pads = g.pad_left > 0 or g.dilation_w > 1
    pads = pads or (g.out_w - 1) * g.stride_w + g.kernel_w > g.in_w
    return {
        "sign": int(sums.signed),
        "clamp": int(sums.clamped),
        "wide": int(site.optimize == "speed"),
        "pads": int(pads),
        "pieces": pieces_of(sums) or 0,
    }


def stream_of(sums: Sums, wide: bool) -> Array:
    """Return the stream: per channel bias and shift, weights, multiplier."""
    multiplier, shift = scaling(sums)
    weights = np.pad(sums.weights, [(0, 0), (0, -sums.weights.shape[1] % 4)])
    parts = []
    for c in range(len(multiplier)):
        parts.append(np.array(sums.bias[c] << 5 | shift[c], "<i4").tobytes())
        parts.append(weights[c].astype("<i4" if wide else "i1").tobytes())
        parts.append(np.array(multiplier[c], "<i4").tobytes())
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


def params(site: Site) -> Params:
    call, g, sums = site.call, window.convolution(site.call), convolution_sums(site)
    out_c, layout = call.output.shape[3], site.output_layout
    flat = whole(site)
    return Params(
        g.in_w * g.in_h if flat else g.in_w, call.input().shape[3],
        g.out_w * g.out_h if flat else g.out_w, out_c,
        g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.dilation_w, g.pad_left, sums.in_zero,
        1 if layout.planar else out_c,
        layout.plane_bytes(call.output) if layout.planar else 1,
        2 * sums.out_zero + 1, sums.clamp_min, sums.clamp_max,
        stream_of(sums, site.optimize == "speed"),
    )  # fmt: skip


def scratch(site: Site) -> int:
    """Four words per product, and one pixel of padding."""
    depth = int(np.prod(site.call.input(1).shape[1:]))
    return 16 * (-(-depth // 4) * 4) + -(-site.call.input().shape[3] // 4) * 4


def unpadded(site: Site) -> bool:
    """Accept where no row of padding is needed."""
    if not accepts(site):
        return False
    g = window.convolution(site.call)
    return g.pad_top == 0 and (g.out_h - 1) * g.stride_h + g.kernel_h <= g.in_h


def _kernel(accepts: Callable[[Site], bool], pad_row: bool) -> Kernel:
    return Kernel(
        "armv6m/conv_2d",
        "td_conv_2d_armv6m",
        accepts=accepts,
        params=params,
        constants=constants,
        scratch=scratch,
        band=4,
        whole=whole,
        pad_row=pad_row,
        planar_output=True,
    )


CONVOLUTIONS = (_kernel(unpadded, False), _kernel(accepts, True))
