"""Turn depthwise convolutions into what the kernels for MVE read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._mve import common
from tinydeploy.ops._mve.conv import (
    ISA,
    Product,
    far,
    output_units,
    product,
    reachable,
    scatter_fits,
)
from tinydeploy.ops.base import Array, Kernel, Site
from tinydeploy.ops.layout import PLAIN, Layout

PLANES = Layout(planar=True)


@dataclass(frozen=True, slots=True)
class StackParams:
    """Mirror the parameters of templates/ops/mve/depthwise.c.j2."""

    in_zero: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    pixel: int
    unit: int
    words: int
    stream: Array


def right_padding(site: Site) -> int:
    """Return the padding columns that windows reach to the right of the image."""
    g = window.convolution(site.call)
    return max(0, (g.out_w - 1) * g.stride_w + g.kernel_w - g.pad_left - g.in_w)


def _simple(site: Site) -> bool:
    """Tell whether one filter slides over each channel, undilated."""
    call = site.call
    if site.isa != ISA or site.optimize == "size":
        return False
    g = window.convolution(call)
    if call.input().shape[3] != call.input(1).shape[3] or (g.dilation_h, g.dilation_w) != (1, 1):
        return False
    return scatter_fits(site) and reachable(product(site))


LARGE = 20000  # bytes of output from which on a row at a time is worth its instructions


def _square(band: int, site: Site) -> bool:
    """Accept 3x3 filters of stride 1, in streams of large images a row at a time."""
    g = window.convolution(site.call)
    single = g.out_w % 2 == 0 and g.out_w >= 4
    if band == 1 and not single:
        return False
    if band == 2 and site.output_layout.ring and single and site.call.output.bytes >= LARGE:
        return False
    if (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w) != (3, 3, 1, 1) or g.out_w < 2:
        return False
    return _simple(site) and right_padding(site) <= 8 and g.in_w <= 512


def tail_words(p: Product) -> list[Array]:
    """Return multiplier, shift and bias of each channel, as the streams have them."""
    parts = common.shifts(p.shift, p.mode)
    words = [p.multiplier, parts[-1], p.bias]
    if p.mode in (common.GENERAL, common.ONCE_LEFT):
        words += [parts[0], (p.shift < 0).astype(np.int32)]
    return [w.astype(np.int32) for w in words]


def square_params(site: Site) -> StackParams:
    p = product(site)
    channels = len(p.weights)
    stacked = np.zeros((channels, 3, 4), np.int8)  # columns of four rows
    stacked[:, :, :3] = p.weights[..., 0].transpose(0, 2, 1)
    words = [stacked.reshape(channels, 12).view(np.int32), *(w[:, None] for w in tail_words(p))]
    stream = np.ascontiguousarray(np.concatenate(words, axis=1))
    pixel, unit = output_units(site)
    return StackParams(
        site.call.input().zero_point, p.zero, p.low, p.high, pixel, unit, stream.size, stream
    )


def _planar(site: Site, position: int) -> Layout:
    return PLANES if position == 0 else PLAIN


def _constants(site: Site) -> dict[str, int]:
    g, p = window.convolution(site.call), product(site)
    return {
        "width": g.in_w, "out_width": g.out_w, "left": g.pad_left, "right": right_padding(site),
        "mode": p.mode, "clamp": p.clamp,
    }  # fmt: skip


def _square_pitch(site: Site) -> int:
    g = window.convolution(site.call)
    return 4 * (g.pad_left + -(-g.in_w // 16) * 16 + right_padding(site) + 4)


def _square_constants(band: int, site: Site) -> dict[str, int]:
    return {
        **_constants(site), "pitch": _square_pitch(site), "band": band,
        "far": 0 if band == 1 else far(site),
    }  # fmt: skip


def _padding_plane(site: Site) -> int:
    """Return the bytes of a plane of zero points, which rows outside the image are."""
    return -(-site.call.input().shape[2] // 4) * 4


def square_scratch(site: Site) -> int:
    return _square_pitch(site) + _padding_plane(site)


def _square_kernel(band: int) -> Kernel:
    return Kernel(
        "mve/depthwise", "td_depthwise_3x3_mve", lambda site: _square(band, site), square_params,
        lambda site: _square_constants(band, site), square_scratch, band=band, wants=_planar,
        planar_output=True, by_rows=True,
    )  # fmt: skip


SQUARE = (_square_kernel(2), _square_kernel(1))


def _rows(site: Site) -> int:
    """Return how many output rows the general kernel computes at once."""
    g = window.convolution(site.call)
    return 2 if g.stride_h == 1 and g.out_h % 2 == 0 and g.kernel_h > 3 else 1


def _shape(site: Site) -> tuple[int, int, int]:
    """Return (stacks of four rows, vectors of four columns, bytes of a stack)."""
    g = window.convolution(site.call)
    columns = g.pad_left + -(-g.in_w // 16) * 16 + right_padding(site) + 8
    return -(-(g.kernel_h + _rows(site) - 1) // 4), -(-g.kernel_w // 4), 4 * columns


def _stack(site: Site) -> bool:
    g = window.convolution(site.call)
    if not _simple(site) or site.call.input().shape[3] * 4 > 4000:
        return False
    if g.stride_w > 3 or right_padding(site) > 8 or g.in_w > 512 or g.out_w < 2:
        return False
    stacks, across, pitch = _shape(site)
    if stacks * across > 8 or 12 * g.stride_w + 16 * across + pitch * (stacks - 1) > 508:
        return False
    if _rows(site) == 2 and not _rings_are_near(site):
        return False
    return g.out_w * g.stride_w <= 512


def _rings_are_near(site: Site) -> bool:
    """Tell whether 16-bit offsets reach between neighbouring rows, if the output is streamed."""
    layout, output = site.output_layout, site.call.output
    return not layout.ring or (layout.ring + 1) * layout.row_bytes(output) < 65536


def stack_params(site: Site) -> StackParams:
    p = product(site)
    stacks, across, _ = _shape(site)
    channels, kernel_h, kernel_w = p.weights.shape[:3]
    filters = np.zeros((channels, stacks * 4, across * 4), np.int8)
    filters[:, :kernel_h, :kernel_w] = p.weights[..., 0]
    # [channel, stack, row, vector, column] to [channel, stack, vector, column, row]
    lanes = filters.reshape(channels, stacks, 4, across, 4).transpose(0, 1, 3, 4, 2)
    packed = np.ascontiguousarray(lanes).reshape(channels, -1).view(np.int32)
    words = [packed, *(w[:, None] for w in tail_words(p))]
    stream = np.ascontiguousarray(np.concatenate(words, axis=1))
    pixel, unit = output_units(site)
    return StackParams(
        site.call.input().zero_point, p.zero, p.low, p.high, pixel, unit, stream.size, stream
    )


def stack_constants(site: Site) -> dict[str, int]:
    g = window.convolution(site.call)
    stacks, across, pitch = _shape(site)
    return {
        **_constants(site), "kernel_h": g.kernel_h, "stride": g.stride_w,
        "rows": _rows(site), "stacks": stacks, "across": across, "pitch": pitch,
    }  # fmt: skip


def stack_scratch(site: Site) -> int:
    stacks, _, pitch = _shape(site)
    return stacks * pitch + 16 + _padding_plane(site)


def _stack_kernel(rows: int) -> Kernel:
    return Kernel(
        "mve/depthwise_stack", "td_depthwise_mve",
        lambda site: site.isa == ISA and _rows(site) == rows and _stack(site),
        stack_params, stack_constants, stack_scratch, band=rows, wants=_planar,
        planar_output=True, by_rows=True,
    )  # fmt: skip


STACK = (_stack_kernel(2), _stack_kernel(1))


@dataclass(frozen=True, slots=True)
class LanesParams:
    """Mirror the parameters of templates/ops/mve/depthwise_lanes.c.j2."""

    in_w: int
    channels: int
    out_w: int
    stride_w: int
    dilation_w: int
    pad_left: int
    in_zero: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    weights: Array
    scales: Array


def _lanes(site: Site) -> bool:
    call = site.call
    if site.isa != ISA or site.optimize == "size":
        return False
    if call.input().shape[3] != call.input(1).shape[3]:
        return False
    p = product(site)
    return p.depth <= 128 and reachable(p)


def _taps_at_once(p: Product) -> int:
    """Return how many products fit 16 bits when added, for every channel and group of taps."""
    size = np.abs(p.weights.reshape(len(p.weights), -1).astype(np.int64))
    best = 1
    for count in range(2, min(16, p.depth) + 1):
        padded = np.pad(size, ((0, 0), (0, -p.depth % count)))
        if padded.reshape(len(size), -1, count).sum(axis=2).max() * 128 < 32768:
            best = count
    return best


def lanes_params(site: Site) -> LanesParams:
    g, p = window.convolution(site.call), product(site)
    channels = len(p.weights)
    pad = -channels % 8
    order = np.arange(channels + pad).reshape(-1, 4, 2).transpose(0, 2, 1).reshape(-1)
    weights = np.pad(p.weights.reshape(channels, -1), ((0, pad), (0, 0)))
    packed = np.ascontiguousarray(weights.reshape(-1, 8, p.depth).transpose(0, 2, 1))
    shift = np.pad(p.shift, (0, pad), constant_values=-2)[order]
    bias, multiplier = (np.pad(a, (0, pad))[order] for a in (p.bias, p.multiplier))
    parts = common.shifts(shift, p.mode)
    vectors = [bias, *parts[:-1], multiplier, parts[-1]]
    scales = np.concatenate([v.astype(np.int32).reshape(-1, 8) for v in vectors], axis=1)
    return LanesParams(
        g.in_w, channels, g.out_w, g.stride_w, g.dilation_w, g.pad_left,
        site.call.input().zero_point, p.zero, p.low, p.high, packed,
        np.ascontiguousarray(scales),
    )  # fmt: skip


def lanes_constants(site: Site) -> dict[str, int]:
    g, p = window.convolution(site.call), product(site)
    return {
        "kernel_h": g.kernel_h, "kernel_w": g.kernel_w, "group": _taps_at_once(p), "mode": p.mode,
    }  # fmt: skip


def lanes_scratch(site: Site) -> int:
    g = window.convolution(site.call)
    return 4 * g.kernel_h * g.kernel_w + -(-site.call.input().shape[3] // 4) * 4


LANES = Kernel(
    "mve/depthwise_lanes", "td_depthwise_lanes_mve", _lanes, lanes_params, lanes_constants,
    lanes_scratch, by_rows=True,
)  # fmt: skip
