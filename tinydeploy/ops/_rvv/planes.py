"""Offer the convolution for RVV that has pixels in lanes, for few output channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._rvv import common
from tinydeploy.ops._rvv.conv import Rows, product, rows_of
from tinydeploy.ops.base import Array, Kernel, Site

TILE = 3  # channels


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of templates/ops/rvv/conv_planes.c.j2."""

    pixels: int
    out_c: int
    terms: int
    rows: int
    channels: int
    stride: int
    plane: int
    row_bytes: int
    left: int
    right: int
    in_zero: int
    planes_at: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    offsets: Array  # uint16 [k]
    weights: Array  # int8, per tile [k, channels of the tile]
    bias: Array
    multiplier: Array
    shift_left: Array
    mask: Array
    shift_right: Array


def _rows(site: Site) -> Rows:
    """Return the rows, always copied, wide enough for whole strides."""
    g, channels = window.convolution(site.call), site.call.input().shape[3]
    r = rows_of(g, channels, False)
    pixel = g.stride_w * channels
    missing = -(r.left + r.row_bytes + r.right) % pixel
    return replace(r, padded=True, runs=1, right=r.right + missing)


def _row_scratch(site: Site) -> int:
    """Return the bytes of one row with its padding, 4-byte aligned."""
    r = _rows(site)
    return -(-(r.left + r.row_bytes + r.right) // 4) * 4


def _plane(site: Site) -> int:
    r, g = _rows(site), window.convolution(site.call)
    return (r.left + r.row_bytes + r.right) // (g.stride_w * site.call.input().shape[3])


def _planes_bytes(site: Site) -> int:
    r, g = _rows(site), window.convolution(site.call)
    return r.rows * g.stride_w * site.call.input().shape[3] * _plane(site)


def accepts(site: Site) -> bool:
    """Accept convolutions that take fewer instructions this way: rough counts per row decide."""
    if not common.for_vectors(site) or site.call.node.op != "CONV_2D":
        return False
    p, g = product(site), window.convolution(site.call)
    if p is None or _planes_bytes(site) > 65535:
        return False
    k, out_c = p.weights.shape
    gathers = g.kernel_h * g.stride_w * site.call.input().shape[3]
    groups = -(-g.out_w // common.LANES)
    planes = gathers * (14 + _plane(site) // 16) + groups * -(-out_c // TILE) * (11 * k + 70)
    tile = 8 if out_c <= 8 else 6 if out_c <= 16 else 3
    lanes = -(-g.out_w // tile) * -(-out_c // common.LANES) * (k * (3 + 2.25 * tile) + 80)
    return bool(planes < lanes)


def params(site: Site) -> Params:
    p, g, r = product(site), window.convolution(site.call), _rows(site)
    assert p is not None
    s, channels = p.scale, site.call.input().shape[3]
    terms, out_c = p.weights.shape
    plane = _plane(site)
    ky, kx, c = np.meshgrid(
        np.arange(g.kernel_h), np.arange(g.kernel_w) * g.dilation_w, np.arange(channels),
        indexing="ij",
    )  # fmt: skip
    offsets = ((ky * g.stride_w + kx % g.stride_w) * channels + c) * plane + kx // g.stride_w
    tiles, first = [], 0
    while first < out_c:
        size = min(TILE, out_c - first)
        tiles.append(p.weights[:, first : first + size].reshape(-1))
        first += size
    return Params(
        g.out_w, out_c, terms, r.rows, channels, g.stride_w, plane, r.row_bytes, r.left, r.right,
        site.call.input().zero_point, _row_scratch(site), p.zero, *p.clamp,
        offsets.reshape(-1).astype(np.uint16), np.concatenate(tiles), p.bias, s.multiplier,
        common.present(s.left, bool(s.left.any())), common.present(s.mask, s.fix == 2), s.right,
    )  # fmt: skip


def constants(site: Site) -> dict[str, int]:
    p = product(site)
    assert p is not None
    terms = len(p.weights)
    return {"unroll": next(u for u in (4, 3, 2, 1) if terms % u == 0), **p.scale.flags()}


def scratch(site: Site) -> int:
    return _row_scratch(site) + -(-_planes_bytes(site) // 4) * 4


PLANES = Kernel(
    "rvv/conv_planes", "td_conv_planes_rvv", accepts, params, constants, scratch, by_rows=True
)  # fmt: skip
