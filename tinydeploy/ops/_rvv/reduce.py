"""Offer sums of two inputs, pools and means for RVV: elements or channels in lanes."""

from __future__ import annotations

from dataclasses import dataclass

from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops._addsub import of_node
from tinydeploy.ops._rvv import common
from tinydeploy.ops.base import Kernel, Site


@dataclass(frozen=True, slots=True)
class AddParams:
    """Mirror the parameters of templates/ops/rvv/add.c.j2."""

    size: int
    a_offset: int
    a_multiplier: int
    a_shift: int
    b_offset: int
    b_multiplier: int
    b_shift: int
    out_multiplier: int
    out_shift: int
    out_offset: int
    clamp_min: int
    clamp_max: int


def _adds(site: Site) -> bool:
    """Accept rows of one run of equal length, and shifts to the right, the last by 1 or more."""
    if not common.for_vectors(site):
        return False
    p = of_node(site.call)
    plain = p.width == 1 and p.a_stride_c == p.b_stride_c == 1
    return plain and p.a_shift <= 0 and p.b_shift <= 0 and p.out_shift < 0


def _adds_whole(site: Site) -> bool:
    call = site.call
    plain = elementwise.is_one_row(site)
    return plain and call.input(0).shape == call.input(1).shape == call.output.shape


def add_params(site: Site) -> AddParams:
    p = of_node(site.call)
    return AddParams(
        site.call.output.elements if _adds_whole(site) else p.channels,
        p.a_offset, p.a_multiplier, -p.a_shift, p.b_offset, p.b_multiplier, -p.b_shift,
        p.out_multiplier, -p.out_shift, p.out_offset, p.clamp_min, p.clamp_max,
    )  # fmt: skip


def add_constants(site: Site) -> dict[str, int]:
    p = add_params(site)
    return {
        "a_shifted": int(p.a_shift > 0), "b_shifted": int(p.b_shift > 0),
        "subtract": int(site.call.node.op == "SUB"), "fix": int(p.clamp_min < p.out_offset),
        "clamp": int((p.clamp_min, p.clamp_max) != (-128, 127)),
    }  # fmt: skip


ADD = Kernel(
    "rvv/add", "td_add_rvv", _adds, add_params, add_constants, whole=_adds_whole, by_rows=True
)

LARGEST_WINDOW = 254  # 254 * 128 + 127 fits int16


def _pools(site: Site) -> bool:
    a = site.call.attributes
    return common.for_vectors(site) and a.kernel_h * a.kernel_w <= LARGEST_WINDOW


POOL = Kernel("rvv/average_pool_2d", "td_average_pool_2d_rvv", _pools, by_rows=True)


@dataclass(frozen=True, slots=True)
class MeanParams:
    """Mirror the parameters of templates/ops/rvv/mean.c.j2."""

    outer: int
    reduce_0: int
    middle: int
    reduce_1: int
    inner: int
    plane: int
    sum_offset: int
    multiplier: int
    shift_left: int
    shift: int
    out_offset: int


def mean_params(site: Site) -> MeanParams:
    from tinydeploy.ops.mean import params

    p = params(site.call, site.profile)
    middle, inner = p.middle, p.inner
    if p.reduce_1 == 1:  # the axes that are kept follow each other
        middle, inner = 1, p.middle * p.inner
    return MeanParams(
        p.outer, p.reduce_0, middle, p.reduce_1, inner, middle * p.reduce_1 * inner,
        p.sum_offset, p.multiplier, max(p.shift, 0), max(-p.shift, 0), p.out_offset,
    )  # fmt: skip


def _means(site: Site) -> bool:
    if not common.for_vectors(site) or site.profile.rounds_once("MEAN"):
        return False
    p = mean_params(site)
    return p.inner >= 4 and p.reduce_0 > 0 and p.reduce_1 > 0


def mean_constants(site: Site) -> dict[str, int]:
    p = mean_params(site)
    return {"left": int(p.shift_left > 0), "fix": int(p.shift > 0 and p.out_offset > -128)}


MEAN = Kernel("rvv/mean", "td_mean_rvv", _means, mean_params, mean_constants)
