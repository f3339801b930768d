"""Offer the convolutions and dense layers for RVV: output channels in lanes, pixels in tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._rvv import common
from tinydeploy.ops.base import Array, Kernel, Site


@dataclass(frozen=True, slots=True)
class Rows:
    """Say how the rows under a window are read: in place, or where they end, from padded copies."""

    padded: bool  # or with taps that need pointers of their own
    rows: int
    runs: int  # runs of a row that lie apart
    run: int  # bytes of a run
    run_step: int
    row_bytes: int
    left: int
    right: int
    reach: int  # bytes from a window's first column to its end

    def piece(self, step: int, tile: int, pixels: int, budget: int) -> int:
        """Return how many pixels share a padded copy of about `budget` bytes: tiles, or fewer."""
        fitting = 1 + max(0, budget // self.rows - self.reach) // max(step, 1)
        fitting -= fitting % tile if fitting > tile else 0
        return min(fitting, pixels)

    def scratch(self, step: int, piece: int) -> int:
        """Return bytes of the table of pointers and of the copy for a piece, 4-byte aligned."""
        if not self.padded:
            return 0
        size = self.rows * ((piece - 1) * step + self.reach)
        return self.rows * self.runs * 4 + -(-size // 4) * 4


def budget(site: Site) -> int:
    """Return the bytes that the copies beside the padding may take: more of them cost less time."""
    return 4096 if site.optimize == "speed" else 1024


def rows_of(g: window.Geometry, channels: int, taps_apart: bool) -> Rows:
    """Return the rows of a window; `taps_apart` makes each dilated tap a run of its own."""
    reach_h, reach_w = (g.kernel_h - 1) * g.dilation_h + 1, (g.kernel_w - 1) * g.dilation_w + 1
    below = (g.out_h - 1) * g.stride_h + reach_h - g.pad_top - g.in_h
    right = max(0, (g.out_w - 1) * g.stride_w + reach_w - g.pad_left - g.in_w)
    apart = taps_apart and g.dilation_w > 1 and g.kernel_w > 1
    padded = g.pad_top > 0 or g.pad_left > 0 or below > 0 or right > 0 or apart
    runs = g.kernel_w if apart else 1
    return Rows(
        padded, g.kernel_h, runs, g.kernel_w // runs * channels, g.dilation_w * channels,
        g.in_w * channels, g.pad_left * channels, right * channels, reach_w * channels,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of templates/ops/rvv/conv_2d.c.j2."""

    pixels: int
    out_c: int
    step: int
    rows: int
    runs: int
    run: int
    run_step: int
    row_bytes: int
    left: int
    reach: int
    piece: int
    in_zero: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    weights: Array  # int8 [k, out_c]
    bias: Array
    multiplier: Array
    shift_left: Array
    mask: Array
    shift_right: Array


@dataclass(frozen=True, slots=True)
class Product:
    """Hold a layer as a matrix product, with everything folded that can be."""

    rows: Rows
    whole: bool
    pixels: int
    step: int
    weights: Array  # int8 [k, out_c]
    bias: Array
    scale: common.Scaling
    zero: int
    clamp: tuple[int, int]


def product(site: Site) -> Product | None:
    """Return a layer as a matrix product, None where the kernels cannot compute it."""
    call = site.call
    if call.node.op == "FULLY_CONNECTED":
        return _dense(site)
    inp, filters, output = call.input(), call.input(1), call.output
    assert filters.data is not None
    g = window.convolution(call)
    channels, out_c = inp.shape[3], output.shape[-1]
    if call.node.op == "DEPTHWISE_CONV_2D":
        if channels != 1:
            return None
        weights = filters.data.reshape(-1, out_c)
    else:
        if filters.shape[3] != channels:
            return None
        weights = filters.data.reshape(out_c, -1).T
    rows = rows_of(g, channels, True)
    whole = (
        not rows.padded
        and g.kernel_h == g.kernel_w == g.stride_h == g.stride_w == 1
        and (g.out_h, g.out_w) == (g.in_h, g.in_w)
        and site.input_layout().plain
        and site.output_layout.plain
    )
    multiplier, shift = window.channel_multipliers(inp, filters, output, out_c)
    clamp = window.clamp_range(call.attributes.activation, output)
    once = site.profile.rounds_once(call.node.op)
    pixels = g.out_h * g.out_w if whole else g.out_w
    return _finish(
        site, rows, whole, pixels, g.stride_w * channels, weights, multiplier, shift, clamp, once
    )


def _dense(site: Site) -> Product | None:
    from tinydeploy.ops.fully_connected import params

    p = params(site.call, site.profile)
    rows = Rows(False, 1, 1, p.in_c, 0, 0, 0, 0, p.in_c)
    return _finish(
        site, rows, True, p.batches, p.in_c, p.weights.T, p.multiplier, p.shift,
        (p.clamp_min, p.clamp_max), bool(p.single_rounding),
    )  # fmt: skip


def _finish(
    site: Site, rows: Rows, whole: bool, pixels: int, step: int, weights: Array,
    multiplier: Array, shift: Array, clamp: tuple[int, int], once: bool,
) -> Product | None:  # fmt: skip
    inp, output = site.call.input(), site.call.output
    bias = window.bias_of(site.call)
    wide = weights.astype(np.int64)
    folded = common.folded_bias(wide.sum(0), bias, inp.zero_point)
    # |x - zero point| <= 255
    bound = int((np.abs(wide).sum(0) * 255 + np.abs(bias.astype(np.int64))).max())
    scale = common.scaling(multiplier, shift, output.zero_point, clamp, once, bound)
    if scale is None or not weights.size:
        return None
    return Product(
        rows, whole, pixels, step, np.ascontiguousarray(weights), folded, scale,
        output.zero_point, clamp,
    )  # fmt: skip


def accepts(site: Site) -> bool:
    return common.for_vectors(site) and product(site) is not None


def params(site: Site) -> Params:
    p = product(site)
    assert p is not None
    r, s = p.rows, p.scale
    return Params(
        p.pixels, p.weights.shape[1], p.step, r.rows, r.runs, r.run, r.run_step,
        r.row_bytes, r.left, r.reach, _piece(site, p), site.call.input().zero_point, p.zero,
        *p.clamp,
        p.weights, p.bias, s.multiplier, common.present(s.left, bool(s.left.any())),
        common.present(s.mask, s.fix == 2), s.right,
    )  # fmt: skip


def constants(site: Site) -> dict[str, int]:
    """Return vectors per accumulator, so that few channels share the registers among more pixels,
    the pixels of the largest tile, and how to requantise.
    """
    p = product(site)
    assert p is not None
    m, tile = _tile(p)
    return {"m": m, "tile": tile, "padded": int(p.rows.padded), **p.scale.flags()}


def _tile(p: Product) -> tuple[int, int]:
    """Return vectors per accumulator and pixels of the largest tile."""
    out_c = p.weights.shape[1]
    m, tile = (2, 8) if out_c <= 8 else (4, 6) if out_c <= 16 else (8, 3)
    return m, 1 if p.pixels == 1 else tile


def _piece(site: Site, p: Product) -> int:
    return p.rows.piece(p.step, _tile(p)[1], p.pixels, budget(site))


def scratch(site: Site) -> int:
    p = product(site)
    assert p is not None
    return p.rows.scratch(p.step, _piece(site, p))


def _whole(site: Site) -> bool:
    p = product(site)
    return p is not None and p.whole


CONV = Kernel(
    "rvv/conv_2d", "td_conv_2d_rvv", accepts, params, constants, scratch, whole=_whole,
    by_rows=True,
)  # fmt: skip
