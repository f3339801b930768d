"""Offer the convolution for RV32IM row by row, for streamed images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._rv32.conv import (
    BAND,
    Plan,
    accepts,
    bits_of,
    constants,
    firsts,
    plan_of,
    tables,
    wide_bytes,
)
from tinydeploy.ops.base import Array, Kernel, Site

_FEW = 3  # tiles of a call that may expand weights on the fly
_TILE, _PAIR = 17, 12  # instructions per k of tiles of 3 and of 2 pixels
_NARROW = 2  # columns of an image whose rows are streamed three at a time
_WINDOW_BYTES = 640  # what copied windows of all pixels may take
_COPY_GROUPS = 4  # groups of output channels for which copying them pays


@dataclass(frozen=True, slots=True)
class RowsParams:
    """Mirror td_conv_2d_rows_rv32_params and td_conv_2d_widened_rv32_params."""

    in_w: int
    in_c: int
    stride_w: int
    left: int
    kernel_w: int
    taps: int
    out_c: int
    groups: int
    first: int
    inner: int
    loose: int
    band: int
    stride_h: int
    window: int
    in_zero: int
    zeros: int
    clamp_min: int
    clamp_max: int
    signed_: int
    nudge: int
    half: int
    heads: Array
    stream: Array
    sizes: Array


def params_rows(site: Site) -> RowsParams:
    from tinydeploy.ops.conv_2d import params as portable

    plan, call = _plan(site), site.call
    p, g = portable(call, site.profile), window.convolution(call)
    return RowsParams(
        g.in_w, p.in_c, g.stride_w, g.pad_left, g.kernel_w, g.kernel_h, p.out_c,
        len(firsts(p.out_c)), *_columns(site, plan), _rows_band(site), g.stride_h,
        _windows_copied(site) * sum(plan.segments), -p.in_offset, _zeros(site),
        p.clamp_min, p.clamp_max, int(plan.scale.signed), plan.scale.nudge,
        plan.scale.half, *tables(site, plan, streamed=True),
    )  # fmt: skip


def _plan(site: Site) -> Plan:
    """Return the plan; where windows are copied, they are one row of the filter."""
    plan = plan_of(site)
    assert plan is not None
    return replace(plan, segments=[sum(plan.segments)]) if _windows_copied(site) else plan


def _columns(site: Site, plan: Plan) -> tuple[int, int, int]:
    """Return the first column and the number of those that are tiled in place, and the others."""
    out_w = window.convolution(site.call).out_w
    if _rows_band(site) == BAND:
        return 0, out_w, 0
    spare = range(min(plan.inner - 1, 3) if plan.inner else 1)
    less = min(spare, key=lambda n: _tiled(plan.inner - n) + _tiled(out_w - plan.inner + n))
    inner = plan.inner - less
    return plan.first if inner else 0, inner, out_w - inner


def _tiled(pixels: int) -> int:
    """Return what the tiles for so many pixels take: of 3, and up to 2 of 2 for what is left."""
    threes = max(pixels // 3 - (pixels % 3 == 1), 0)
    return _TILE * threes + _PAIR * -(-(pixels - 3 * threes) // 2)


def _zeros(site: Site) -> int:
    """Return the bytes of zero points that stand for a row outside the image.

    Where weights are not wide in flash, those of such a row are left out.
    """
    if site.optimize != "speed":
        return 0
    g = window.convolution(site.call)
    inside = g.pad_top == 0
    inside = inside and (g.out_h - 1) * g.stride_h + (g.kernel_h - 1) * g.dilation_h < g.in_h
    return 0 if inside else -(-g.kernel_w * site.call.input().shape[3] // 4) * 4


def scratch_rows(site: Site) -> int:
    """Return the bytes of: where pixels are, zero points, windows at the border."""
    plan = plan_of(site)
    assert plan is not None
    g = window.convolution(site.call)
    tables = 1 + -(-_columns(site, plan)[2] // 3)
    return tables * g.kernel_h * 16 + _zeros(site) + _windows(site, plan, _outside(site))


def scratch_widened(site: Site) -> int:
    """Return the bytes of: where filter rows begin, copied windows, the stream."""
    plan = _plan(site)
    copied = _windows_copied(site)
    columns = BAND * site.call.output.shape[2] if copied else _columns(site, plan)[2]
    starts = 4 * site.call.input(1).shape[1]
    return starts + _windows(site, plan, columns) + wide_bytes(site, plan, 0)


def _windows(site: Site, plan: Plan, columns: int) -> int:
    return -(-columns * sum(plan.segments) // 4) * 4


def _outside(site: Site) -> int:
    """Return how many columns' windows reach beyond the image."""
    g = window.convolution(site.call)
    starts = np.arange(g.out_w) * g.stride_w - g.pad_left
    return int(((starts < 0) | (starts + g.kernel_w > g.in_w)).sum())


def _direct(site: Site) -> bool:
    """Tell whether tiles expand weights on the fly: too few of them to expand them before.

    In instructions per tile: 4 more per weight, 4 per chunk of about 4 weights and 24 per row of
    the filter; to expand them before, 8 per weight and 18 per chunk.
    """
    g = window.convolution(site.call)
    tiles = -(-g.out_w * _rows_band(site) // 3)
    if site.optimize == "speed" or bits_of(site) < 8 or tiles > _FEW or _windows_copied(site):
        return False
    weights = g.kernel_h * g.kernel_w * site.call.input().shape[3]
    return site.pace == "tight" or tiles * (5 * weights + 24 * g.kernel_h) <= 12.5 * weights


def _widens(site: Site) -> bool:
    return site.optimize != "speed" and not _direct(site)


def _windows_copied(site: Site) -> bool:
    """Tell whether the windows of all pixels of three rows are copied, where they are so small.

    Weights are then expanded for all of them, and in longer chunks: a window is one piece.
    """
    plan = plan_of(site)
    if plan is None or plan.band != BAND or site.optimize == "speed" or site.pace == "tight":
        return False
    width, filters = site.call.output.shape[2:]
    small = BAND * width * sum(plan.segments) <= _WINDOW_BYTES
    return small and len(firsts(filters)) >= _COPY_GROUPS


def _rows_band(site: Site) -> int:
    """Return the rows of output per streamed call: 3 where rows are narrow or windows small."""
    g = window.convolution(site.call)
    plan = plan_of(site)
    several = g.out_w <= _NARROW or site.pace == "wide"
    several = plan is not None and plan.direct and several
    return BAND if several or _windows_copied(site) else 1


def _accepts(widened: bool, band: int) -> Callable[[Site], bool]:
    return lambda site: (
        accepts(site) and _widens(site) == widened and (band == 1 or _rows_band(site) == band)
    )


ROWS: tuple[Kernel, ...] = tuple(
    Kernel(
        f"rv32/conv_2d_{name}",
        f"td_conv_2d_{name}_rv32",
        accepts=_accepts(name == "widened", band),
        params=params_rows,
        constants=constants,
        scratch=scratch_widened if name == "widened" else scratch_rows,
        band=band,
        by_rows=True,
    )
    for band in (BAND, 1)
    for name in ("widened", "rows")
)
