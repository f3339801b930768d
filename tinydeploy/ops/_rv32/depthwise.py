"""Offer the depthwise convolution for RV32IM: one channel plane at a time, padded, in scratch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._rv32 import pack
from tinydeploy.ops.base import Array, Kernel, Site, once_per_site

_MAX_TILE = 8
MAX_TAPS = 16  # filter columns, unrolled


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_depthwise_rv32_params."""

    in_h: int
    in_w: int
    in_c: int
    multiplier_: int
    plane_bytes: int
    pitch: int
    first: int
    fill: int
    out_h: int
    out_w: int
    out_c: int
    kernel_h: int
    row_step: int
    tap_step: int
    clamp_min: int
    clamp_max: int
    nudge: int
    half: int
    weights: Array  # [out_c][kernel_h * kernel_w], int32 times 4 when wide, else int8
    heads: Array  # int32 [out_c][bias, multiplier, addend, shift], see tables


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the window with its longer axis along the columns, and the scaling."""

    turned: bool  # an image of one column is seen as one row
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int
    rows: int
    pitch: int
    weights: Array  # [out_c, kernel_h, kernel_w]
    start: Array
    scale: pack.Scaling


def plan_of(site: Site, rows_given: bool = False) -> Plan | None:
    return (_plan_of_rows if rows_given else _plan_of_whole)(site)


def planned(site: Site, rows_given: bool = False) -> Plan:
    """Return the plan of a node that is known to have one."""
    plan = plan_of(site, rows_given)
    assert plan is not None
    return plan


@once_per_site
def _plan_of_whole(site: Site) -> Plan | None:
    return _plan(site, rows_given=False)


@once_per_site
def _plan_of_rows(site: Site) -> Plan | None:
    return _plan(site, rows_given=True)


def _narrowed(g: window.Geometry) -> tuple[window.Geometry, slice]:
    """Leave out columns of the filter that see padding alone: all but one if the image has one."""
    tap, rest = divmod(g.pad_left, g.dilation_w)
    one = g.in_w == g.out_w == 1 < g.kernel_w and g.kernel_h <= MAX_TAPS
    if not one or rest or tap >= g.kernel_w:
        return g, slice(None)
    return replace(g, kernel_w=1, pad_left=0), slice(tap, tap + 1)


def _plan(site: Site, rows_given: bool) -> Plan | None:
    from tinydeploy.ops.depthwise_conv_2d import params as portable

    call = site.call
    p, g = portable(call, site.profile), window.convolution(call)
    if not (g.out_h and g.out_w and g.in_h and g.in_w):
        return None
    g, columns = _narrowed(g)
    turned = g.in_w == g.out_w == g.kernel_w == 1 and g.pad_left == 0 and not rows_given
    shape: tuple[int, ...] = (
        g.in_h, g.in_w, g.out_h, g.out_w, g.kernel_h, g.kernel_w,
        g.stride_h, g.stride_w, g.dilation_h, g.dilation_w, g.pad_top, g.pad_left,
    )  # fmt: skip
    if turned:
        shape = tuple(v for i in range(0, 12, 2) for v in (shape[i + 1], shape[i]))
    in_h, in_w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dil_h, dil_w, top, left = (
        shape
    )
    if kernel_w > MAX_TAPS:
        return None
    if turned:
        stride_h = dil_h = 1
    rows = max(top + in_h, (out_h - 1) * stride_h + (kernel_h - 1) * dil_h + 1)
    pitch = max(left + in_w, (out_w - 1) * stride_w + (kernel_w - 1) * dil_w + 1)
    if (rows * pitch > 32768 and not rows_given) or (
        kernel_w - 1
    ) * dil_w + _MAX_TILE * stride_w > 2000:
        return None
    w = np.moveaxis(p.weights, 2, 0)[:, :, columns]
    start = p.bias.astype(np.int64) + p.in_offset * w.astype(np.int64).sum((1, 2))
    low, high = pack.bounds(w, start)
    scale = pack.scaling(
        p.multiplier, p.shift, low, high, p.out_offset, (p.clamp_min, p.clamp_max),
        site.profile.rounds_once("DEPTHWISE_CONV_2D"),
    )  # fmt: skip
    if scale is None:
        return None
    return Plan(
        turned, in_h, in_w, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dil_h, dil_w,
        top, left, rows, pitch, w, start, scale,
    )  # fmt: skip


def accepts(site: Site) -> bool:
    return able(site) and plan_of(site) is not None


def able(site: Site) -> bool:
    return site.isa == "rv32imac" and site.optimize != "size" and site.call.output.elements > 0


def is_compact(site: Site, plan: Plan) -> bool:
    return site.optimize != "speed" and plan.scale.compact


def tables(site: Site, plan: Plan, factor: int = 1) -> tuple[Array, Array]:
    """Return the weights [out_c, kernel_h * kernel_w] and heads of all channels.

    For speed all have a factor 4; else the biases have `factor`. In compact form a head is bias and
    multiplier, and each channel's weights are followed by its exponent.
    """
    scale = plan.scale
    weights = plan.weights.reshape(len(plan.weights), -1)
    if site.optimize == "speed":
        weights, factor = weights.astype(np.int32) * 4, 4
    columns = [wrap32(plan.start * factor).astype(np.int32), scale.multiplier]
    if is_compact(site, plan):
        weights = np.concatenate([weights, scale.exponents[:, None]], axis=1)
    else:
        columns += [scale.addend, scale.shift]
    return np.ascontiguousarray(weights), np.stack(columns, axis=1)


def params(site: Site) -> Params:
    from tinydeploy.ops.depthwise_conv_2d import params as portable

    plan = planned(site)
    p = portable(site.call, site.profile)
    out_c = p.weights.shape[2]
    return Params(
        plan.in_h, plan.in_w, p.in_c, p.depth_multiplier, _plane(plan), plan.pitch,
        plan.top * plan.pitch + plan.left, -p.in_offset, plan.out_h, plan.out_w, out_c,
        plan.kernel_h, plan.stride_h * plan.pitch, plan.dilation_h * plan.pitch,
        p.clamp_min, p.clamp_max, plan.scale.nudge, plan.scale.half, *tables(site, plan),
    )  # fmt: skip


def _plane(plan: Plan) -> int:
    return -(-plan.rows * plan.pitch // 4) * 4


def scratch(site: Site) -> int:
    return _plane(planned(site))


def tile_of(width: int) -> int:
    """Return the number of columns computed together that wastes least, the widest of equals."""
    sizes = range(min(width, _MAX_TILE), 0, -1)
    # A tile costs about as much as one more output, besides its outputs.
    return min(sizes, key=lambda t: (-(-width // t)) * (t + 1))


def forms(site: Site, plan: Plan) -> dict[str, int]:
    """Return the constants that say how sums are rounded and how `tables` holds numbers."""
    return {
        "away": int(plan.scale.signed),
        "wide": int(site.optimize == "speed"),
        "compact": int(is_compact(site, plan)),
    }


def loops(site: Site, plan: Plan) -> dict[str, int]:
    """Return the constants of code whose loops over filter columns and a tile are unrolled."""
    return {
        "kernel_w": plan.kernel_w,
        "stride": plan.stride_w,
        "dilation": plan.dilation_w,
        "tile": tile_of(plan.out_w),
        **forms(site, plan),
    }


def constants(site: Site) -> dict[str, int]:
    return loops(site, planned(site))


def _plain(site: Site) -> bool:
    return site.input_layout().plain and site.output_layout.plain


@dataclass(frozen=True, slots=True)
class Params3x3:
    """Mirror td_depthwise_3x3_rv32_params."""

    in_h: int
    in_w: int
    in_c: int
    multiplier_: int
    plane_bytes: int
    first: int
    fill: int
    out_h: int
    out_w: int
    out_c: int
    clamp_min: int
    clamp_max: int
    weights: Array  # [out_c][3][3], int32 times 4 when wide, else int8
    heads: Array  # int32 [out_c][4 * bias, multiplier, addend, shift]


def _pitch_3x3(plan: Plan, site: Site) -> int:
    """Return the bytes of a plane's row, which the code has as constants: few different ones."""
    if site.optimize == "speed":
        return plan.pitch
    return next((n for n in (8, 16, 32, 64) if n >= plan.pitch), plan.pitch)


def accepts_3x3(site: Site) -> bool:
    """Accept 3x3 filters of stride 1 or 2 on images of any width.

    The code is made for one width: too much of it unless speed is all that counts.
    """
    if site.optimize != "speed" or not accepts(site) or not _plain(site):
        return False
    plan = planned(site)
    return (
        not plan.turned
        and plan.kernel_h == plan.kernel_w == 3
        and plan.stride_h == plan.stride_w <= 2
        and plan.dilation_h == plan.dilation_w == 1
        and plan.pitch <= 500  # offsets of up to 4 rows are immediates
    )


def params_3x3(site: Site) -> Params3x3:
    plan = planned(site)
    p, pitch = params(site), _pitch_3x3(plan, site)
    return Params3x3(
        p.in_h, p.in_w, p.in_c, p.multiplier_, scratch_3x3(site), plan.top * pitch + plan.left,
        p.fill, p.out_h, p.out_w, p.out_c, p.clamp_min, p.clamp_max, p.weights, p.heads,
    )  # fmt: skip


def scratch_3x3(site: Site) -> int:
    plan = planned(site)
    return -(-plan.rows * _pitch_3x3(plan, site) // 4) * 4


def constants_3x3(site: Site) -> dict[str, int]:
    plan = planned(site)
    return {
        "stride": plan.stride_w,
        "pitch": _pitch_3x3(plan, site),
        "odd": plan.out_w % 2,
        **forms(site, plan),
    }


PLANES_3X3 = Kernel(
    "rv32/depthwise_3x3",
    "td_depthwise_3x3_rv32",
    accepts=accepts_3x3,
    params=params_3x3,
    constants=constants_3x3,
    scratch=scratch_3x3,
    whole=_plain,
)
PLANES = Kernel(
    "rv32/depthwise",
    "td_depthwise_rv32",
    accepts=accepts,
    params=params,
    constants=constants,
    scratch=scratch,
    whole=_plain,
)
