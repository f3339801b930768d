"""Turn a depthwise convolution into the stream that the Armv7-M kernel reads.

One SMLAL multiplies one element by the weights of two output rows, packed 23 bits apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._armv7m.conv import Sums, doubled, fits, scaling, sums_of
from tinydeploy.ops.base import Array, Kernel, Site
from tinydeploy.ops.layout import PLAIN, Layout

_COLUMNS = 3  # output columns per step
_LARGEST = 7  # rows and columns of a filter


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_depthwise_conv_2d_armv7m_params and td_depthwise_conv_2d_armv7m_row_params."""

    channels: int
    out_w: int
    plane: int
    left: int
    x_step: int
    c_step: int
    zero_point: int
    in_zero: int
    stream: Array  # int32, per channel


@dataclass(frozen=True, slots=True)
class ParamsWithOthers(Params):
    """Add channels that are scaled up, which the assembly cannot do."""

    others: Array  # int32 [others, 4]: channel, bias, multiplier, left shift
    other_weights: Array  # int8 [others, taps]
    other_count: int


def depthwise_sums(site: Site) -> Sums:
    """Return the sums of a DEPTHWISE_CONV_2D, products in the order filter row, column."""
    call = site.call
    inp, weights, output = call.input(), call.input(1), call.output
    assert weights.data is not None
    channels = weights.shape[3]
    multiplier, shift = window.channel_multipliers(inp, weights, output, channels)
    return sums_of(
        weights.data.reshape(-1, channels).T, window.bias_of(call).astype(np.int64),
        multiplier, shift, inp.zero_point, output.zero_point,
        window.clamp_range(call.attributes.activation, output),
    )  # fmt: skip


def accepts(site: Site) -> bool:
    if site.isa != "armv7-m":
        return False
    call = site.call
    g = window.convolution(call)
    if call.input(1).shape[3] != call.input().shape[3] or g.stride_h != g.stride_w:
        return False
    if g.dilation_h != 1 or g.dilation_w != 1 or max(g.kernel_h, g.kernel_w) > _LARGEST:
        return False
    if g.out_w < _COLUMNS or g.out_h < 1 or g.stride_h > 3:
        return False
    sums, others = planar_sums(site)
    few = 8 * len(others) <= len(sums.bias)
    return few and fits(sums, "DEPTHWISE_CONV_2D", site) and not sums.clamped


def planar_sums(site: Site) -> tuple[Sums, Array]:
    """Return the sums without the scales of channels that are scaled up, and those channels."""
    sums = depthwise_sums(site)
    up = sums.shift < 1
    kept = replace(
        sums,
        multiplier=np.where(up, 0, sums.multiplier),
        shift=np.where(up, 2, sums.shift),
    )
    return kept, np.flatnonzero(up)


def wants(site: Site, position: int) -> Layout:
    """Planar rows with the columns of zero points that the windows reach."""
    if position != 0:
        return PLAIN
    g = window.convolution(site.call)
    right = max(0, (g.out_w - 1) * g.stride_w + g.kernel_w - g.pad_left - g.in_w)
    between = max(0, right - g.pad_left)  # what pads a plane on the left pads the one before
    return Layout(planar=True, left=g.pad_left, right=between, tail=right - between)


def packed(sums: Sums, kernel_h: int, kernel_w: int, stride: int) -> Array:
    """Return words [channels, rows, columns]: weights of the upper and the lower output row.

    Columns are ordered by their remainder modulo the stride.
    """
    channels = len(sums.bias)
    weights = sums.weights.astype(np.int64).reshape(channels, kernel_h, kernel_w)
    words = np.zeros((channels, kernel_h + stride, kernel_w), np.int64)
    words[:, :kernel_h] += weights
    words[:, stride:] += weights << 23
    order = [c for phase in range(stride) for c in range(phase, kernel_w, stride)]
    return words[:, :, order]


def packed_columns(sums: Sums, kernel_h: int, kernel_w: int, stride: int) -> Array:
    """Return words [channels, rows, words]: weights of two neighbouring output columns."""
    channels = len(sums.bias)
    weights = sums.weights.astype(np.int64).reshape(channels, kernel_h, kernel_w)
    parts = []
    for phase in range(min(stride, kernel_w)):
        own = weights[:, :, phase::stride]
        parts.append(np.pad(own, [(0, 0), (0, 0), (0, 1)]))
        parts[-1][:, :, 1:] += own << 23
    return np.concatenate(parts, axis=2)


def stream_of(sums: Sums, words: Array | None) -> Array:
    """Return the stream: per channel bias, multiplier, shift and weights, packed into words or not.

    With words the constants of the requantisation are there, too.
    """
    twice = doubled(sums)
    multiplier, shift = scaling(sums, twice)
    parts = []
    for c in range(len(multiplier)):
        if words is not None:
            bias = int(sums.bias[c]) * ((1 << 23) + 1)
            zero = (2 * sums.out_zero + 1) << int(shift[c])
            half = 1 << (31 if twice else 30)
            head = [bias & 0xFFFFFFFF, bias >> 32, multiplier[c], shift[c], half, zero]
            row = np.array([*head, *words[c].reshape(-1).tolist()], np.int64)
            parts.append(np.bitwise_and(row, 0xFFFFFFFF).astype("<u4").tobytes())
        else:
            data = np.array([sums.bias[c], multiplier[c]]).astype("<i4").tobytes()
            data += sums.weights[c].astype("i1").tobytes() + bytes([int(shift[c])])
            parts.append(data + bytes(-len(data) % 4))
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


def _params(site: Site, pack: Callable[[Sums, int, int, int], Array]) -> Params:
    call, g, (sums, others) = site.call, window.convolution(site.call), planar_sums(site)
    channels, layout = call.output.shape[3], site.output_layout
    wide = site.optimize == "speed"
    plain = Params(
        channels, g.out_w, site.input_layout().plane_bytes(call.input()), -g.pad_left,
        1 if layout.planar else channels,
        layout.plane_bytes(call.output) if layout.planar else 1,
        2 * sums.out_zero + 1, sums.in_zero,
        stream_of(sums, pack(sums, g.kernel_h, g.kernel_w, g.stride_h) if wide else None),
    )  # fmt: skip
    if not len(others):
        return plain
    own = depthwise_sums(site)
    scales = np.stack(
        [others, own.bias[others], own.multiplier[others], -own.shift[others]], axis=1
    )
    same: dict[str, Any] = {f.name: getattr(plain, f.name) for f in fields(plain)}
    return ParamsWithOthers(
        **same,
        others=scales.astype(np.int32),
        other_weights=np.ascontiguousarray(own.weights[others]),
        other_count=len(others),
    )


def constants(site: Site) -> dict[str, int]:
    g, (sums, others) = window.convolution(site.call), planar_sums(site)
    return {
        "kernel_h": g.kernel_h,
        "kernel_w": g.kernel_w,
        "stride": g.stride_h,
        "sign": int(doubled(sums)),
        "wide": int(site.optimize == "speed"),
        "others": int(len(others) > 0),
    }


def _column_pairs(g: window.Geometry) -> int:
    """Return how many pairs of columns a step of the row kernel takes: the number that costs least.

    The figures are instructions: of the multiplications, the loads and the requantisation.
    """

    def cost(pairs: int) -> int:
        words = g.kernel_w + min(g.stride_w, g.kernel_w)
        loads = words + 2 * min(g.stride_w, g.kernel_w) * (pairs - 1)
        spill = 1 if pairs == 3 and g.kernel_w // g.stride_w > 3 else 0
        row = pairs * words + loads + min(g.stride_w, g.kernel_w) + 2 + spill
        return -(-g.out_w // (2 * pairs)) * (g.kernel_h * row + 31 * pairs + 15)

    return min((p for p in (3, 2, 1) if 2 * p <= g.out_w), key=cost)


def accepts_row(site: Site) -> bool:
    """Accept what the kernel for two rows accepts, where the fewest rows are to be held.

    Narrow rows are better computed by twos: what is done once per channel and row weighs more.
    """
    return site.output_layout.ring > 0 and site.call.output.shape[2] >= 8 and accepts(site)


def row_scratch(site: Site) -> int:
    """A plane of zero points."""
    g = window.convolution(site.call)
    return -(-((g.out_w - 1) * g.stride_w + g.kernel_w) // 4) * 4


@dataclass(frozen=True, slots=True)
class TapParams:
    """Mirror td_depthwise_conv_2d_armv7m_taps_params and td_depthwise_conv_2d_armv6m_params."""

    in_w: int
    in_c: int
    out_w: int
    depth_multiplier: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    dilation_w: int
    pad_left: int
    in_zero: int
    x_step: int
    c_step: int
    zero_point: int
    clamp_min: int
    clamp_max: int
    scales: Array  # int32 [channels, words]
    weights: Array  # int8 [channels, taps]


def accepts_taps(site: Site) -> bool:
    """Accept any shape whose sums can be scaled by one long multiplication."""
    return site.isa == "armv7-m" and fits(depthwise_sums(site), "DEPTHWISE_CONV_2D", site)


def tap_params(site: Site) -> TapParams:
    sums = depthwise_sums(site)
    return tap_params_of(site, sums, [sums.bias, *scaling(sums, doubled(sums))])


def tap_params_of(site: Site, sums: Sums, scales: Sequence[Array]) -> TapParams:
    """Return what both cores' kernels are told; `scales` are interleaved per channel."""
    call, g, layout = site.call, window.convolution(site.call), site.output_layout
    in_c, out_c = call.input().shape[3], call.output.shape[3]
    return TapParams(
        g.in_w, in_c, g.out_w, out_c // in_c, g.kernel_h, g.kernel_w, g.stride_w, g.dilation_w,
        g.pad_left, sums.in_zero, 1 if layout.planar else out_c,
        layout.plane_bytes(call.output) if layout.planar else 1,
        2 * sums.out_zero + 1, sums.clamp_min, sums.clamp_max,
        np.stack(scales, axis=1).astype(np.int32), np.ascontiguousarray(sums.weights),
    )  # fmt: skip


def tap_scratch(site: Site) -> int:
    """A pointer per tap, and one pixel of padding."""
    g = window.convolution(site.call)
    return 4 * g.kernel_h * g.kernel_w + -(-site.call.input().shape[3] // 4) * 4


def tap_constants(site: Site) -> dict[str, int]:
    sums = depthwise_sums(site)
    return {"sign": int(doubled(sums)), "clamp": int(sums.clamped)}


def _two_rows(by_rows: bool) -> Kernel:
    return Kernel(
        "armv7m/depthwise_conv_2d",
        "td_depthwise_conv_2d_armv7m",
        accepts=accepts,
        params=lambda site: _params(site, packed),
        constants=constants,
        band=2,
        pad_row=True,
        wants=wants,
        planar_output=True,
        by_rows=by_rows,
    )


DEPTHWISE = (
    _two_rows(by_rows=False),
    Kernel(
        "armv7m/depthwise_conv_2d_row",
        "td_depthwise_conv_2d_armv7m_row",
        accepts=accepts_row,
        params=lambda site: _params(site, packed_columns),
        constants=lambda site: {
            **constants(site),
            "pairs": _column_pairs(window.convolution(site.call)),
        },
        scratch=row_scratch,
        wants=wants,
        planar_output=True,
        by_rows=True,
    ),
    _two_rows(by_rows=True),
    Kernel(
        "armv7m/depthwise_conv_2d_taps",
        "td_depthwise_conv_2d_armv7m_taps",
        accepts=accepts_taps,
        params=tap_params,
        constants=tap_constants,
        scratch=tap_scratch,
        planar_output=True,
        by_rows=True,
    ),
)
