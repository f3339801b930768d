"""Turn depthwise convolutions into kernels for SMLAD that read channel planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.requant import Requant, is_dsp, pair, requant
from tinydeploy.ops.base import Kernel, Site
from tinydeploy.ops.layout import PLAIN, Layout

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/depthwise_conv_2d.c.j2."""

    channels: int
    out_w: int
    pad_left: int
    plane: int  # bytes of a channel's columns in an input row
    zero_point: int
    out_pixel: int
    out_channel: int
    out_row: int  # bytes of an output row, for clamping
    clamp: int
    clamp_min: int
    clamp_max: int
    stream: Array


@dataclass(frozen=True, slots=True)
class Filters:
    """Hold depthwise filters [channels, kernel_h, kernel_w], folded bias and requantisation."""

    filters: Array
    bias: Array
    requant: Requant


def filters_of(site: Site, scaled: bool = True) -> Filters | None:
    """Return the filters of a node with one filter per channel, scaled unless they stay int8."""
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
    how = requant(flat, bias, multiplier, shift, call.output.zero_point, single)
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


def _layout(site: Site, position: int) -> Layout:
    """Planes with padding for every load; of stride 2 the second load reads a column too many."""
    if position != 0:
        return PLAIN
    g = window.convolution(site.call)
    s = g.stride_w
    right = (g.out_w - 1) * s + 3 + (s == 2) - g.pad_left - g.in_w
    return Layout(True, g.pad_left, max(0, right))


def _stream(f: Filters) -> Array:
    """Pack per channel: requantisation, bias, outer taps per row, middle taps."""
    r, w, none = f.requant, f.filters, np.zeros_like(f.bias)
    columns = [
        r.multiplier, r.addend, r.right, f.bias,
        *(pair(w[:, k, 0], w[:, k, 2]) for k in range(3)),
        pair(w[:, 0, 1], w[:, 1, 1]), pair(w[:, 2, 1], none),
    ]  # fmt: skip
    return wrap32(np.stack(columns, axis=1).ravel()).astype(np.int32)


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
    return Params(
        call.input().shape[3], g.out_w, g.pad_left,
        site.input_layout(0).plane_bytes(call.input()), call.input().zero_point,
        *out_steps(site), int((low, high) != (-128, 127)), low, high, _stream(f),
    )  # fmt: skip


def _scratch(site: Site) -> int:
    """One plane of zero points stands for rows outside the image."""
    return -(-site.input_layout(0).plane_bytes(site.call.input()) // 4) * 4


def _constants(site: Site) -> dict[str, int]:
    f = filters_of(site)
    assert f is not None
    uniform = f.requant.uniform
    relu = int(not uniform and site.call.output.zero_point == -128)
    return {"stride": window.convolution(site.call).stride_w, "uniform": uniform, "relu": relu}


DEPTHWISE_CONV_2D = (
    Kernel(
        "dsp/depthwise_conv_2d", "td_depthwise_3x3_dsp", _fits, _params, _constants, _scratch,
        band=2, wants=_layout, planar_output=True, by_rows=True,
    ),
)  # fmt: skip
