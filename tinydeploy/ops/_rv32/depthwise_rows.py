"""Offer the depthwise convolution for RV32IM row by row, for streamed images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ops._rv32.depthwise import (
    MAX_TAPS,
    Plan,
    able,
    forms,
    loops,
    plan_of,
    planned,
    tables,
)
from tinydeploy.ops.base import Array, Kernel, Site

_COLUMN_BANDS = (4, 1)  # rows of output per call of what works on images of one column
_BAND = 3  # and of other kernels that copy rows
_NARROW = 2  # columns of an image for which that is always worth its RAM


@dataclass(frozen=True, slots=True)
class RowsParams:
    """Mirror td_depthwise_rows_rv32_params."""

    in_w: int
    in_c: int
    multiplier_: int
    left: int
    fill: int
    out_w: int
    out_c: int
    kernel_h: int
    pitch: int
    band: int
    stride_h: int
    clamp_min: int
    clamp_max: int
    nudge: int
    half: int
    weights: Array
    heads: Array


def accepts_rows(site: Site) -> bool:
    return able(site) and plan_of(site, rows_given=True) is not None


def _plan(site: Site) -> Plan:
    return planned(site, rows_given=True)


def _band(site: Site) -> int:
    """Return the rows of output per call: those of the input that they share are copied once."""
    plan = _plan(site)
    several = site.pace == "wide" or (plan.out_w <= _NARROW and site.pace == "even")
    return _BAND if several and plan.out_h >= _BAND and plan.dilation_h == 1 else 1


def _accepts_band(site: Site) -> bool:
    return accepts_rows(site) and _band(site) > 1


def params_rows(site: Site) -> RowsParams:
    from tinydeploy.ops.depthwise_conv_2d import params as portable

    plan = _plan(site)
    p = portable(site.call, site.profile)
    return RowsParams(
        plan.in_w, p.in_c, p.depth_multiplier, plan.left, -p.in_offset, plan.out_w,
        p.weights.shape[2], plan.kernel_h, plan.pitch, _band(site), plan.stride_h,
        p.clamp_min, p.clamp_max, plan.scale.nudge, plan.scale.half, *tables(site, plan),
    )  # fmt: skip


def scratch_rows(site: Site) -> int:
    """Return the bytes of one channel of the rows with their padding."""
    plan = _plan(site)
    rows = (_band(site) - 1) * plan.stride_h + plan.kernel_h
    return -(-rows * plan.pitch // 4) * 4


def constants_rows(site: Site) -> dict[str, int]:
    return loops(site, _plan(site))


@dataclass(frozen=True, slots=True)
class ColumnParams:
    """Mirror td_depthwise_column_rv32_params."""

    channels: int
    fill: int
    clamp_min: int
    clamp_max: int
    nudge: int
    half: int
    weights: Array
    heads: Array


def accepts_column(site: Site, band: int = 1) -> bool:
    """Accept images of one column: what filters of one column make of audio."""
    from tinydeploy.ops.depthwise_conv_2d import params as portable

    if not accepts_rows(site):
        return False
    plan, p = _plan(site), portable(site.call, site.profile)
    one = plan.in_w == plan.out_w == plan.kernel_w == p.depth_multiplier == 1
    several = band == 1 or (
        site.pace != "tight" and plan.out_h >= band and plan.stride_h <= 2 and plan.dilation_h == 1
    )
    return one and several and plan.left == 0 and plan.kernel_h <= MAX_TAPS


def params_column(site: Site) -> ColumnParams:
    p = params_rows(site)
    return ColumnParams(
        p.out_c, p.fill, p.clamp_min, p.clamp_max, p.nudge, p.half, p.weights, p.heads
    )


def _pads(site: Site) -> int:
    plan = _plan(site)
    last = (plan.out_h - 1) * plan.stride_h + (plan.kernel_h - 1) * plan.dilation_h
    return int(plan.top > 0 or last >= plan.in_h)


def constants_column(site: Site, band: int) -> dict[str, int]:
    plan = _plan(site)
    return {
        "taps": plan.kernel_h,
        "stride": plan.stride_h if band > 1 else 1,
        "band": band,
        "pads": _pads(site),
        **forms(site, plan),
    }


def scratch_column(site: Site) -> int:
    """Return the bytes of a row of zero points."""
    return -(-site.call.output.shape[3] // 4) * 4 if _pads(site) else 0


@dataclass(frozen=True, slots=True)
class Rows3x3Params:
    """Mirror td_depthwise_3x3_rows_rv32_params."""

    channels: int
    clamp_min: int
    clamp_max: int
    nudge: int
    half: int
    fill: int
    bytes: int
    weights: Array
    heads: Array


def _right(plan: Plan) -> int:
    """Return the columns of padding on the right that outputs read."""
    return max(0, (plan.out_w - 1) * plan.stride_w + 3 - plan.left - plan.in_w)


def accepts_3x3_rows(site: Site) -> bool:
    """Accept 3x3 filters of stride 1 or 2 with at most one column of padding on each side."""
    from tinydeploy.ops.depthwise_conv_2d import params as portable

    if not accepts_rows(site):
        return False
    plan, p = _plan(site), portable(site.call, site.profile)
    return (
        plan.kernel_h == plan.kernel_w == 3
        and plan.stride_w <= 2
        and plan.dilation_w == p.depth_multiplier == 1
        and plan.left <= 1
        and _right(plan) <= 1
        and plan.out_w >= 2
        and plan.in_w >= 2
        and _has_rows(plan)
    )


def _has_rows(plan: Plan) -> bool:
    """Tell whether every row of output reads a row of the image."""
    first = np.arange(plan.out_h) * plan.stride_h - plan.top
    rows = first[:, None] + np.arange(plan.kernel_h) * plan.dilation_h
    return bool(((rows >= 0) & (rows < plan.in_h)).any(1).all())


def params_3x3_rows(site: Site) -> Rows3x3Params:
    plan = _plan(site)
    p = params_rows(site)
    return Rows3x3Params(
        p.in_c, p.clamp_min, p.clamp_max, p.nudge, p.half, p.fill,
        (p.out_w - _right(plan)) * p.in_c, *tables(site, plan, 4),
    )  # fmt: skip


def constants_3x3_rows(site: Site) -> dict[str, int]:
    plan = _plan(site)
    return {
        "stride": plan.stride_w,
        "left": plan.left,
        "right": _right(plan),
        **forms(site, plan),
    }


ROWS_3X3 = Kernel(
    "rv32/depthwise_3x3_rows",
    "td_depthwise_3x3_rows_rv32",
    accepts=accepts_3x3_rows,
    params=params_3x3_rows,
    constants=constants_3x3_rows,
    by_rows=True,
)


def _column(band: int) -> Kernel:
    return Kernel(
        "rv32/depthwise_column",
        "td_depthwise_column_rv32",
        accepts=lambda site: accepts_column(site, band),
        params=params_column,
        constants=lambda site: constants_column(site, band),
        scratch=scratch_column,
        band=band,
        by_rows=True,
    )


COLUMNS = tuple(_column(band) for band in _COLUMN_BANDS)
_ROW = Kernel(
    "rv32/depthwise_rows",
    "td_depthwise_rows_rv32",
    accepts=accepts_rows,
    params=params_rows,
    constants=constants_rows,
    scratch=scratch_rows,
    by_rows=True,
)
ROWS = (replace(_ROW, accepts=_accepts_band, band=_BAND), _ROW)
