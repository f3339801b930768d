"""Turn a depthwise convolution into what the Armv6-M kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._armv6m.conv import fits, pieces_of, scaling
from tinydeploy.ops._armv7m.depthwise import depthwise_sums
from tinydeploy.ops.base import Array, Kernel, Site


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_depthwise_conv_2d_armv6m_params."""

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
    scales: Array  # int32 [channels, 2]
    weights: Array  # int8 [channels, taps]


def accepts(site: Site) -> bool:
    if site.isa != "armv6-m":
        return False
    g = window.convolution(site.call)
    if g.kernel_h * g.kernel_w > 255:
        return False
    return fits(depthwise_sums(site), "DEPTHWISE_CONV_2D", site)


def params(site: Site) -> Params:
    call, g, sums = site.call, window.convolution(site.call), depthwise_sums(site)
    in_c, out_c, layout = call.input().shape[3], call.output.shape[3], site.output_layout
    multiplier, shift = scaling(sums)
    return Params(
        g.in_w, in_c, g.out_w, out_c // in_c, g.kernel_h, g.kernel_w, g.stride_w, g.dilation_w,
        g.pad_left, sums.in_zero, 1 if layout.planar else out_c,
        layout.plane_bytes(call.output) if layout.planar else 1,
        2 * sums.out_zero + 1, sums.clamp_min, sums.clamp_max,
        np.stack([sums.bias << 5 | shift, multiplier], axis=1).astype(np.int32),
        np.ascontiguousarray(sums.weights),
    )  # fmt: skip


def scratch(site: Site) -> int:
    """A pointer per tap, and one pixel of padding."""
    g = window.convolution(site.call)
    return 4 * g.kernel_h * g.kernel_w + -(-site.call.input().shape[3] // 4) * 4


def constants(site: Site) -> dict[str, int]:
    sums, g = depthwise_sums(site), window.convolution(site.call)
    return {
        "taps": g.kernel_h * g.kernel_w,
        "sign": int(sums.signed),
        "clamp": int(sums.clamped),
        "pieces": pieces_of(sums) or 0,
    }


DEPTHWISE = (
    Kernel(
        "armv6m/depthwise_conv_2d",
        "td_depthwise_conv_2d_armv6m",
        accepts=accepts,
        params=params,
        constants=constants,
        scratch=scratch,
        pad_row=True,
        planar_output=True,
    ),
)
