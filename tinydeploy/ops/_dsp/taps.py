"""Turn depthwise convolutions over interleaved rows into a kernel for four channels at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.compact import compact_form
from tinydeploy.ops._dsp.depthwise import Filters, filters_of, out_steps
from tinydeploy.ops._dsp.requant import pair
from tinydeploy.ops.base import Kernel, Site

Array = NDArray[Any]

_CHANNELS = 4096  # offsets of a compact stream have 12 bits


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/depthwise_conv_2d_taps.c.j2."""

    in_w: int
    channels: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    dilation_w: int
    pad_left: int
    zero_point: int
    out_pixel: int
    out_channel: int
    out_row: int
    clamp: int
    clamp_min: int
    clamp_max: int
    padded: int  # whether any tap may lie outside the image
    out_zero: int
    stream: Array
    stream_end: int  # words


def _compact(site: Site) -> Filters | None:
    """Return filters in 8 bits with what fits their stream, None where they must be widened."""
    if site.optimize == "speed" or site.call.input().shape[3] > _CHANNELS:
        return None
    f = filters_of(site, scaled=False, general=True)
    if f is None or site.profile.rounds_once("DEPTHWISE_CONV_2D") or not f.requant.right.all():
        return None
    return f


def _bits(site: Site) -> int:
    return 16 if _compact(site) is None else 8


def _fours(channels: int) -> list[Array]:
    """Return the channels that are computed together: the last four may repeat some."""
    return [np.arange(4) + min(first, channels - 4) for first in range(0, channels, 4)]


def _compact_stream(f: Filters, zero: int) -> Array:
    """Pack per four channels: biases, offset above four shifts, weights tap after tap, multipliers.

    The zero point and the rounding are added after the shift, so that no addends are needed.
    """
    c = compact_form(f.requant, f.bias, zero, single=False)
    weights = f.filters.reshape(f.bias.size, -1) & 0xFF
    words: list[Array] = []
    for four in _fours(f.bias.size):
        shifts = (c.low[four] << np.arange(0, 20, 5)).sum()
        words.append(np.array([*c.bias[four], four[0] << 20 | shifts]))
        words.append((weights[four] << np.arange(0, 32, 8)[:, None]).sum(axis=0))
        words.append(c.multiplier[four])
    return wrap32(np.concatenate(words)).astype(np.int32)


def _stream(f: Filters) -> Array:
    """Pack per four channels: biases, offset, weights tap after tap, requantisation."""
    r = f.requant
    weights = f.filters.reshape(f.bias.size, -1)
    words: list[Array] = []
    for four in _fours(f.bias.size):
        w = weights[four]
        words.append(np.array([*f.bias[four], four[0]]))
        words.append(np.stack([pair(w[0], w[2]), pair(w[1], w[3])], axis=1).ravel())
        words.append(np.stack([r.multiplier[four], r.addend[four]], axis=1).ravel())
        if not r.uniform:
            words.append(r.right[four])
    return wrap32(np.concatenate(words)).astype(np.int32)


def _accepts(site: Site) -> bool:
    return site.call.input().shape[3] >= 4 and filters_of(site) is not None


def _params(site: Site) -> Params:
    compact, f = _compact(site), filters_of(site)
    assert f is not None
    call, g = site.call, window.convolution(site.call)
    low, high = window.clamp_range(call.attributes.activation, call.output)
    zero = call.output.zero_point
    stream = _compact_stream(compact, zero) if compact else _stream(f)
    rows = (g.out_h - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h - g.pad_top
    columns = (g.out_w - 1) * g.stride_w + (g.kernel_w - 1) * g.dilation_w - g.pad_left
    padded = g.pad_top > 0 or g.pad_left > 0 or rows >= g.in_h or columns >= g.in_w
    return Params(
        g.in_w, call.input().shape[3], g.out_w, g.kernel_h, g.kernel_w, g.stride_w, g.dilation_w,
        g.pad_left, call.input().zero_point, *out_steps(site),
        int((low, high) != (-128, 127)), low, high, int(padded), zero, stream, stream.size,
    )  # fmt: skip


def _scratch(site: Site) -> int:
    """Addresses of the taps of a pixel, and a pixel of zero points."""
    g = window.convolution(site.call)
    return g.kernel_h * g.kernel_w * 4 + -(-site.call.input().shape[3] // 4) * 4


def _constants(site: Site) -> dict[str, int]:
    f = filters_of(site)
    assert f is not None
    bits = _bits(site)
    uniform = f.requant.uniform if bits == 16 else 0
    relu = int(not uniform and site.call.output.zero_point == -128)
    return {"bits": bits, "uniform": uniform, "relu": relu}


DEPTHWISE_CONV_2D = (
    Kernel(
        "dsp/depthwise_conv_2d_taps", "td_depthwise_taps_dsp", _accepts, _params, _constants,
        _scratch, planar_output=True, by_rows=True,
    ),
)  # fmt: skip
