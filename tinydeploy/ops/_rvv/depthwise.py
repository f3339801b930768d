"""Offer the depthwise convolution for RVV: channels, or pixels and channels, in lanes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._rvv import common
from tinydeploy.ops._rvv.conv import Rows, budget, rows_of
from tinydeploy.ops.base import Array, Kernel, Site

TILE = 3  # groups of pixels


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of templates/ops/rvv/depthwise.c.j2."""

    tiles: int
    rest: int
    lanes: int
    step: int
    out_step: int
    rows: int
    run: int
    tap: int
    row_bytes: int
    left: int
    reach: int
    piece: int
    in_zero: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    weights: Array  # int8 [kernel_h, kernel_w, lanes]
    bias: Array
    multiplier: Array
    shift_left: Array
    mask: Array
    shift_right: Array


def _scaling(site: Site) -> common.Scaling | None:
    call = site.call
    inp, filters, output = call.input(), call.input(1), call.output
    assert filters.data is not None
    multiplier, shift = window.channel_multipliers(inp, filters, output, output.shape[-1])
    clamp = window.clamp_range(call.attributes.activation, output)
    bias = np.abs(window.bias_of(call).astype(np.int64))
    taps = np.abs(filters.data[0].astype(np.int64)).sum((0, 1))
    return common.scaling(
        multiplier, shift, output.zero_point, clamp, site.profile.rounds_once(call.node.op),
        int((bias + 255 * taps).max()),
    )  # fmt: skip


def _rows(site: Site) -> Rows:
    return rows_of(window.convolution(site.call), site.call.input().shape[3], False)


def _pixels(site: Site) -> int:
    """Return the pixels whose channels fill the lanes together: a group."""
    g = window.convolution(site.call)
    fitting = common.LANES // site.call.input().shape[3]
    return max(1, min(g.out_w, fitting)) if g.stride_w == 1 else 1


def _step(site: Site) -> int:
    """Return the bytes from one group's inputs to the next one's."""
    return _pixels(site) * window.convolution(site.call).stride_w * site.call.input().shape[3]


def _reach(site: Site) -> int:
    """Return the bytes from the first to the last input of a group."""
    return _rows(site).reach + (_pixels(site) - 1) * site.call.input().shape[3]


def _piece(site: Site) -> int:
    groups = -(-window.convolution(site.call).out_w // _pixels(site))
    rows = replace(_rows(site), reach=_reach(site))
    return rows.piece(_step(site), TILE, groups, budget(site))


def _scratch(site: Site) -> int:
    return replace(_rows(site), reach=_reach(site)).scratch(_step(site), _piece(site))


def accepts(site: Site) -> bool:
    if not common.for_vectors(site) or site.call.output.shape[-1] != site.call.input().shape[3]:
        return False
    filters = site.call.input(1)
    return filters.elements > 0 and _scaling(site) is not None


def params(site: Site) -> Params:
    call = site.call
    g, r, s = window.convolution(call), _rows(site), _scaling(site)
    inp, output, filters = call.input(), call.output, call.input(1)
    assert s is not None and filters.data is not None
    channels = inp.shape[3]
    pixels = _pixels(site)
    tiles, rest = divmod(g.out_w, pixels)
    weights = filters.data[0]
    bias = common.folded_bias(
        weights.astype(np.int64).sum((0, 1)), window.bias_of(call), inp.zero_point
    )
    low, high = window.clamp_range(call.attributes.activation, output)

    def lanes(array: Array) -> Array:
        return np.tile(array, pixels)

    return Params(
        tiles, rest * channels, pixels * channels, pixels * g.stride_w * channels,
        pixels * channels, r.rows, g.kernel_w * g.dilation_w * channels, g.dilation_w * channels,
        r.row_bytes, r.left, _reach(site), _piece(site),
        inp.zero_point, output.zero_point, low, high,
        np.tile(weights, (1, 1, pixels)), lanes(bias), lanes(s.multiplier),
        common.present(lanes(s.left), bool(s.left.any())),
        common.present(lanes(s.mask), s.fix == 2), lanes(s.right),
    )  # fmt: skip


def constants(site: Site) -> dict[str, int]:
    scale = _scaling(site)
    assert scale is not None
    return {"padded": int(_rows(site).padded), **scale.flags()}


DEPTHWISE = Kernel(
    "rvv/depthwise", "td_depthwise_rvv", accepts, params, constants,
    _scratch, by_rows=True,
)  # fmt: skip
