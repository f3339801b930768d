"""Turn depthwise convolutions into kernels for SMLAD that read channel planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.requant import Requant, is_dsp, pair, requant
from tinydeploy.ops.base import Kernel, Site, once_per_site
from tinydeploy.ops.layout import PLAIN, Layout

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/depthwise_conv_2d.c.j2."""

    channels: int
    out_w: int
    pad_left: int
    plane: int  # bytes of a channel's columns in an input row
    touched: int  # columns of a plane that are read, rounded up to 4
    out_pixel: int
    out_channel: int
    out_row: int  # bytes of an output row, for clamping
    zero_point: int
    clamp: int
    clamp_min: int
    clamp_max: int
    exponent: int  # of the compact stream: the least shift
    rounding: int  # of the compact stream: 2 output zero point + 1
    stream: Array


@dataclass(frozen=True, slots=True)
class Filters:
    """Hold depthwise filters [channels, kernel_h, kernel_w], folded bias and requantisation."""

    filters: Array
    bias: Array
    requant: Requant


def filters_of(site: Site, scaled: bool = True, general: bool = False) -> Filters | None:
    """Return the filters of a node with one filter per channel, scaled unless they stay int8."""
    return _filters(site, scaled, general) if general or not scaled else _scaled(site)


@once_per_site
def _scaled(site: Site) -> Filters | None:
    return _filters(site, scaled=True, general=False)


def _filters(site: Site, scaled: bool, general: bool) -> Filters | None:
    call = site.call
    weights = call.input(1).data
    assert weights is not None
    if not is_dsp(site) or site.optimize == "size" or call.output.elements == 0:
        return None
    channels = call.input().shape[3]
    if weights.shape[3] != channels:
        return None
    filters = weights[0].transpose(2, 0, 1).astype(np.int64)
    flat = filters.reshape(channels, -1)
    bias = window.bias_of(call) - call.input().zero_point * flat.sum(axis=1)
    multiplier, shift = window.channel_multipliers(
        call.input(), call.input(1), call.output, channels
    )
    single = site.profile.rounds_once("DEPTHWISE_CONV_2D")
    how = requant(
        flat, bias, multiplier, shift, call.output.zero_point, single, general=general
    )  # fmt: skip
    if how is None:
        return None
    scale = np.where(how.constant, 0, np.int64(1) << (how.scale_log2 if scaled else 0))
    return Filters(filters * scale[:, None, None], bias * scale, how)


def _fits(site: Site) -> bool:
    g = window.convolution(site.call)
    return (
        (g.kernel_h, g.kernel_w, g.dilation_h, g.dilation_w) == (3, 3, 1, 1)
        and g.stride_h == g.stride_w
        and g.stride_w in (1, 2)
        and g.out_w >= 2
        and filters_of(site) is not None
    )


def _touched(site: Site) -> int:
    """Return how many columns are read, padding included: whole words, thus one too many beside
    an even stride or an odd column."""
    g = window.convolution(site.call)
    return (g.out_w - 1) * g.stride_w + 3 + (g.stride_w == 2 or g.out_w % 2)


def _layout(site: Site, position: int) -> Layout:
    """Planes with the padding that is needed on one side, which serves the next plane, too."""
    if position != 0:
        return PLAIN
    g = window.convolution(site.call)
    needed = (g.out_w - 1) * g.stride_w + 3 - g.pad_left - g.in_w
    right = max(0, needed - g.pad_left)
    return Layout(
        True, g.pad_left, right, max(0, _touched(site) - g.pad_left - g.in_w - right)
    )  # fmt: skip


def _stream(f: Filters) -> Array:
    """Pack per channel: m, C, outer taps per row, middle taps, the last above the shift, bias."""
    r, w = f.requant, f.filters
    columns = [
        r.multiplier, r.addend,
        *(pair(w[:, k, 0], w[:, k, 2]) for k in range(3)),
        pair(w[:, 0, 1], w[:, 1, 1]), pair(r.right, w[:, 2, 1]), f.bias,
    ]  # fmt: skip
    return wrap32(np.stack(columns, axis=1).ravel()).astype(np.int32)


@dataclass(frozen=True, slots=True)
class Compact:
    """Hold 16 bytes per channel, and the shift that is added to those in it."""

    exponent: int
    stream: Array


@once_per_site
def _compact(site: Site) -> Compact | None:
    """Pack per channel: bytes w00 w10 w02 w12, bytes w20 w01 w22 w11, 30 bits of the multiplier
    above 2 of the shift, 22 bits of the bias above 2 of the shift above w21.

    The addend is computed from the shift. Returns None when a number does not fit its bits.
    """
    f = filters_of(site, scaled=False, general=True)
    if f is None or site.profile.rounds_once("DEPTHWISE_CONV_2D"):
        return None
    r, zero = f.requant, site.call.output.zero_point
    exponent = int(r.right[~r.constant].min(initial=21))
    # Without weights, a bias that gives the value: with m = 2^30 half of it is the high product.
    value = (r.addend >> r.right) - zero
    bias = np.where(r.constant, value << (exponent + 1), f.bias)
    multiplier = np.where(r.constant, 1 << 30, r.multiplier)
    shift = np.where(r.constant, 0, r.right - exponent)
    if (shift > 15).any() or (np.abs(bias) >= 2**21).any() or (multiplier < 2**30).any():
        return None
    w = (f.filters & 0xFF).reshape(-1, 9)
    columns = [
        w[:, 0] | w[:, 3] << 8 | w[:, 2] << 16 | w[:, 5] << 24,
        w[:, 6] | w[:, 1] << 8 | w[:, 8] << 16 | w[:, 4] << 24,
        (multiplier & 0x3FFFFFFF) << 2 | shift & 3,
        bias << 10 | (shift >> 2) << 8 | w[:, 7],
    ]
    return Compact(exponent, wrap32(np.stack(columns, axis=1).ravel()).astype(np.int32))


def out_steps(site: Site) -> tuple[int, int, int]:
    """Return bytes from pixel to pixel, from channel to channel, and of a whole output row."""
    out, layout = site.call.output, site.output_layout
    pixel, channel = (1, layout.plane_bytes(out)) if layout.planar else (out.shape[3], 1)
    return pixel, channel, (out.shape[3] - 1) * channel + (out.shape[2] - 1) * pixel + 1


def _params(site: Site) -> Params:
    f, call = filters_of(site), site.call
    assert f is not None
    g = window.convolution(call)
    low, high = window.clamp_range(call.attributes.activation, call.output)
    compact = None if site.optimize == "speed" else _compact(site)
    return Params(
        call.input().shape[3], g.out_w, g.pad_left,
        site.input_layout(0).plane_bytes(call.input()), _scratch(site),
        *out_steps(site), call.input().zero_point, int((low, high) != (-128, 127)), low, high,
        compact.exponent if compact else 0, 2 * call.output.zero_point + 1,
        compact.stream if compact else _stream(f),
    )  # fmt: skip


def _scratch(site: Site) -> int:
    """One plane of zero points stands for rows outside the image."""
    return -(-_touched(site) // 4) * 4


def _constants(site: Site, lines: int = 2) -> dict[str, int]:
    f = filters_of(site)
    assert f is not None
    stride = window.convolution(site.call).stride_w
    compact = site.optimize != "speed" and _compact(site) is not None
    uniform = 0 if compact else f.requant.uniform
    relu = int(not uniform and site.call.output.zero_point == -128)
    bits = 8 if compact else 16
    return {"stride": stride, "lines": lines, "bits": bits, "uniform": uniform, "relu": relu}


def _fits_row(site: Site) -> bool:
    """Accept what is streamed where RAM counts most: three rows of a ring do instead of four."""
    return site.pace == "tight" and site.output_layout.ring > 0 and _fits(site)


def _fits_pair(site: Site) -> bool:
    return _fits(site) and not _fits_row(site)


_NARROW = 12  # output columns; of more, a loop needs few instructions more


def _fits_narrow(site: Site) -> bool:
    """Accept rows short enough to be unrolled, whose pixels STRB reaches with 12 bits."""
    g = window.convolution(site.call)
    reach = (g.out_w - 1) * out_steps(site)[0]
    return site.optimize == "speed" and g.out_w <= _NARROW and reach < 4096 and _fits_pair(site)


def _narrow_constants(site: Site) -> dict[str, int]:
    sizes = {"columns": window.convolution(site.call).out_w, "pixel": out_steps(site)[0]}
    return _constants(site) | sizes


DEPTHWISE_CONV_2D = (
    Kernel(
        "dsp/depthwise_conv_2d", "td_depthwise_3x3_row_dsp", _fits_row, _params,
        lambda site: _constants(site, 1), _scratch, wants=_layout, planar_output=True, by_rows=True,
    ),
    Kernel(
        "dsp/depthwise_conv_2d_narrow", "td_depthwise_3x3_narrow_dsp", _fits_narrow, _params,
        _narrow_constants, _scratch, band=2, wants=_layout, planar_output=True, by_rows=True,
    ),
    Kernel(
        "dsp/depthwise_conv_2d", "td_depthwise_3x3_dsp", _fits_pair, _params, _constants, _scratch,
        band=2, wants=_layout, planar_output=True, by_rows=True,
    ),
)  # fmt: skip
