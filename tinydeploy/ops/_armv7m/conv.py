"""Turn a convolution into the packed stream that the Armv7-M kernel reads.

One SMLAL multiplies two pixels, packed into a word 23 bits apart, by one weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import Array, Kernel, Site

# A sum in the lower field of a 64-bit accumulator has 23 bits.
FIELD_BITS = 23


@dataclass(frozen=True, slots=True)
class Sums:
    """Hold what the sums of a layer need: folded biases, multipliers and shifts per channel.

    bias: bias - zero_point * sum(weights), so that the products use stored activations.
    low, high: the smallest and largest possible sum. shift: right shift, at least 0.
    """

    weights: Array  # [channels, products]
    bias: Array
    multiplier: Array
    shift: Array
    low: Array
    high: Array
    in_zero: int
    out_zero: int
    clamp_min: int
    clamp_max: int

    @property
    def largest(self) -> int:
        return int(max(np.abs(self.low).max(), np.abs(self.high).max(), 0))

    @property
    def signed(self) -> bool:
        """Tell whether halves of negative sums can be seen in the output."""
        return self.clamp_min < self.out_zero

    @property
    def clamped(self) -> bool:
        """Tell whether the output's range is narrower than int8."""
        return (self.clamp_min, self.clamp_max) != (-128, 127)


def sums_of(
    weights: Array,
    bias: Array,
    multiplier: Array,
    shift: Array,
    in_zero: int,
    out_zero: int,
    clamp: tuple[int, int],
) -> Sums:
    """Bound the sums of [channels, products] weights over int8 activations.

    A channel whose output is always the same gets weights of 0 and the bias that gives it: the one
    it had may be too large for a kernel.
    """
    w, shift = weights.astype(np.int64), -shift.astype(np.int64)
    least, most = -128 - in_zero, 127 - in_zero
    low = bias + np.minimum(w * least, w * most).sum(axis=1)
    high = bias + np.maximum(w * least, w * most).sum(axis=1)
    safe = (shift >= 0) & (low > -(1 << 31)) & (high < 1 << 31)
    down, ends = np.where(safe, -shift, 0), np.stack([np.where(safe, e, 0) for e in (low, high)])
    outputs = [
        np.clip(requantize(ends, multiplier, down, single=single), *np.array(clamp) - out_zero)
        for single in (False, True)
    ]
    same = safe & (np.ptp(np.concatenate(outputs), axis=0) == 0)
    constant = outputs[0][0] * 8  # halved by the multiplier below, then divided by 4
    return Sums(
        np.where(same[:, None], 0, weights).astype(np.int8),
        np.where(same, constant, bias - in_zero * w.sum(axis=1)),
        np.where(same, 1 << 30, multiplier).astype(np.int64), np.where(same, 2, shift),
        np.where(same, constant, low), np.where(same, constant, high), in_zero, out_zero, *clamp,
    )  # fmt: skip


def convolution_sums(site: Site) -> Sums:
    """Return the sums of a CONV_2D, products in the order filter row, column, channel."""
    call = site.call
    inp, weights, output = call.input(), call.input(1), call.output
    assert weights.data is not None
    multiplier, shift = window.channel_multipliers(inp, weights, output, weights.shape[0])
    return sums_of(
        weights.data.reshape(weights.shape[0], -1), window.bias_of(call).astype(np.int64),
        multiplier, shift, inp.zero_point, output.zero_point,
        window.clamp_range(call.attributes.activation, output),
    )  # fmt: skip


def fits(sums: Sums, operator: str, site: Site) -> bool:
    """Tell whether the sums fit a field, and every channel scales down by at least 2."""
    return (
        not site.profile.rounds_once(operator)
        and sums.largest < 1 << (FIELD_BITS - 1)
        and bool((sums.shift >= 1).all())
        and bool((np.abs(sums.bias) < 1 << 31).all())
    )


def doubled(sums: Sums) -> bool:
    """Tell whether sums are doubled before they are scaled.

    That leaves the rounded high product by itself, to which the sign is added; and it takes a shift
    of 1, where a high product with one more bit takes a shift of 2.
    """
    return sums.signed or bool((sums.shift < 2).any())


def scaling(sums: Sums, twice: bool) -> tuple[Array, Array]:
    """Return (multipliers, shifts to the bit after the point) of sums that are `doubled` or not."""
    return sums.multiplier, sums.shift - (1 if twice else 2)


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_conv_2d_armv7m_params and td_conv_2d_armv6m_params."""

    in_w: int
    in_c: int
    out_w: int
    out_c: int
    band: int
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
    stream: Array  # int32


def possible(site: Site) -> bool:
    """Tell whether the shapes are those of a convolution without groups that has outputs."""
    call, g = site.call, window.convolution(site.call)
    return call.input(1).shape[3] == call.input().shape[3] and g.out_h * g.out_w > 0


def pads(site: Site) -> int:
    """Return 1 if a window may reach beyond the image, or has gaps between its columns."""
    g = window.convolution(site.call)
    right = (g.out_w - 1) * g.stride_w + g.kernel_w > g.in_w
    below = (g.out_h - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h >= g.in_h - g.pad_top
    return int(g.pad_left > 0 or g.pad_top > 0 or g.dilation_w > 1 or right or below)


def _params(site: Site, band: int, stream_of: Callable[[Sums, bool], Array]) -> Params:
    """Return what both cores' kernels are told about a convolution."""
    call, g, sums = site.call, window.convolution(site.call), convolution_sums(site)
    out_c, layout = call.output.shape[3], site.output_layout
    flat = window.is_one_row(site)
    return Params(
        g.in_w * g.in_h if flat else g.in_w, call.input().shape[3],
        g.out_w * g.out_h if flat else g.out_w, out_c, band,
        g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.dilation_w, g.pad_left, sums.in_zero,
        1 if layout.planar else out_c, layout.plane_bytes(call.output) if layout.planar else 1,
        2 * sums.out_zero + 1, sums.clamp_min, sums.clamp_max,
        stream_of(sums, site.optimize == "speed"),
    )  # fmt: skip


def scratch_of(site: Site, product_bytes: int, multiple: int = 1) -> int:
    """Return the bytes for the products of four pixels, and for one pixel of padding if needed."""
    depth = int(np.prod(site.call.input(1).shape[1:]))
    pixel = -(-site.call.input().shape[3] // 4) * 4 if pads(site) else 0
    return product_bytes * (-(-depth // multiple) * multiple) + pixel


def kernels(
    template: str,
    function: str,
    accepts: Callable[[Site], bool],
    constants: Callable[[Site], dict[str, int]],
    stream_of: Callable[[Sums, bool], Array],
    scratch: Callable[[Site], int],
) -> tuple[Kernel, ...]:
    """Return a kernel for four rows at a time, and those where the fewest rows are to be held.

    Of the latter a node gets the one with the fewest rows that fill its tiles. `stream_of` turns
    sums into what the assembly reads, with wide weights or not.
    """

    def kernel(band: int, by_rows: bool) -> Kernel:
        def able(site: Site) -> bool:
            g = window.convolution(site.call)
            fewer = by_rows and band > 1 and _fills_tiles(g.out_w * band // 2)
            return not fewer and (band == 1 or g.dilation_h == 1) and accepts(site)

        return Kernel(
            template, function, able, lambda site: _params(site, band, stream_of), constants,
            scratch, band=band, whole=window.is_one_row, planar_output=True, by_rows=by_rows,
        )  # fmt: skip

    return (kernel(4, False), *(kernel(band, True) for band in (4, 2, 1)))


def _fills_tiles(pixels: int) -> bool:
    """Tell whether hardly any of the tiles' four pixels are computed in vain."""
    return -(-pixels // 4) * 4 <= 1.04 * pixels


def accepts(site: Site) -> bool:
    if site.isa != "armv7-m" or not possible(site):
        return False
    return fits(convolution_sums(site), "CONV_2D", site)


def constants(site: Site) -> dict[str, int]:
    sums = convolution_sums(site)
    return {
        "sign": int(doubled(sums)),
        "clamp": int(sums.clamped),
        "wide": int(site.optimize == "speed"),
        "pads": pads(site),
    }


def stream_of(sums: Sums, wide: bool) -> Array:
    """Return the stream: per two channels biases, multipliers, weights, shifts."""
    multiplier, shift = scaling(sums, doubled(sums))
    channels = len(multiplier)
    order = [*range(channels - channels % 2), *([channels - 1] * (2 * (channels % 2)))]
    parts = []
    for pair in zip(order[::2], order[1::2], strict=True):
        chosen = list(pair)
        weights = sums.weights[chosen].T.reshape(-1)
        data = np.concatenate([sums.bias[chosen], multiplier[chosen]]).astype("<i4").tobytes()
        data += weights.astype("<i4" if wide else "i1").tobytes()
        data += shift[chosen].astype("i1").tobytes()
        parts.append(data + bytes(-len(data) % 4))
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


CONVOLUTIONS = kernels(
    "armv7m/conv_2d",
    "td_conv_2d_armv7m",
    accepts,
    constants,
    stream_of,
    scratch=lambda site: scratch_of(site, 8),
)
