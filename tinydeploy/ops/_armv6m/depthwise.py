"""Turn a depthwise convolution into what the Armv6-M kernel reads."""

from __future__ import annotations

from tinydeploy.ops import _window as window
from tinydeploy.ops._armv6m.conv import fits, pieces_of
from tinydeploy.ops._armv7m.depthwise import (
    TapParams,
    depthwise_sums,
    tap_params_of,
    tap_scratch,
)
from tinydeploy.ops.base import Kernel, Site


def accepts(site: Site) -> bool:
    if site.isa != "armv6-m":
        return False
    g = window.convolution(site.call)
    if g.kernel_h * g.kernel_w > 255:
        return False
    return fits(depthwise_sums(site), "DEPTHWISE_CONV_2D", site)


def params(site: Site) -> TapParams:
    sums = depthwise_sums(site)
    head = sums.bias << 5 | sums.shift
    return tap_params_of(site, sums, [head, sums.multiplier])


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
        scratch=tap_scratch,
        planar_output=True,
        by_rows=True,
    ),
)
