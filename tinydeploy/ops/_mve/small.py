"""Turn sums and averages into what the kernels for MVE read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops._mve.common import INT8
from tinydeploy.ops._mve.conv import ISA
from tinydeploy.ops.base import Kernel, Site

HALF = 1 << 30  # a multiplier, with shift 0


@dataclass(frozen=True, slots=True)
class AddParams:
    """Mirror the parameters of templates/ops/mve/add.c.j2."""

    count: int
    a_offset: int
    a_multiplier: int
    a_shift: int
    b_offset: int
    b_multiplier: int
    b_shift: int
    out_offset: int
    out_multiplier: int
    out_shift: int
    clamp_min: int
    clamp_max: int


def _portable(site: Site) -> Any:
    """Return the parameters of the portable kernel."""
    from tinydeploy.ops import op_named

    return op_named(site.call.node.op).params(site.call, site.profile)


def _able(site: Site) -> bool:
    return site.isa == ISA and site.optimize != "size"


def _add(site: Site) -> bool:
    if not _able(site):
        return False
    p = _portable(site)
    runs = (p.width, p.a_stride_c, p.b_stride_c) == (1, 1, 1)
    return bool(runs and max(p.a_shift, p.b_shift, p.out_shift) <= 0 and p.out_shift < 0)


def _add_whole(site: Site) -> bool:
    same = site.call.input(0).shape == site.call.input(1).shape
    return same and elementwise.is_one_row(site)


def add_params(site: Site) -> AddParams:
    p = _portable(site)
    count = site.call.output.elements if _add_whole(site) else p.channels
    return AddParams(
        count, p.a_offset, p.a_multiplier, p.a_shift, p.b_offset, p.b_multiplier, p.b_shift,
        p.out_offset, p.out_multiplier, p.out_shift, p.clamp_min, p.clamp_max,
    )  # fmt: skip


def add_constants(site: Site) -> dict[str, int]:
    p = _portable(site)
    return {
        "a_half": int((p.a_multiplier, p.a_shift) == (HALF, 0)),
        "b_half": int((p.b_multiplier, p.b_shift) == (HALF, 0)),
        "a_shifted": int(p.a_shift < 0),
        "b_shifted": int(p.b_shift < 0),
        "away": int((p.out_offset, p.clamp_min) != (-128, -128)),
        "clamp": int((p.clamp_min, p.clamp_max) != INT8),
    }


@dataclass(frozen=True, slots=True)
class MeanParams:
    """Mirror the parameters of templates/ops/mve/mean.c.j2."""

    pixels: int
    channels: int
    sum_offset: int
    multiplier: int
    shift: int
    out_offset: int


def _average(site: Site) -> bool:
    p = _portable(site) if _able(site) else None
    return p is not None and p.kernel_h * p.kernel_w <= 255


def _mean(site: Site) -> bool:
    if not _able(site) or site.profile.rounds_once("MEAN"):
        return False
    p = _portable(site)
    return (p.outer, p.reduce_1, p.inner) == (1, 1, 1)


def mean_params(site: Site) -> MeanParams:
    p = _portable(site)
    return MeanParams(p.reduce_0, p.middle, p.sum_offset, p.multiplier, p.shift, p.out_offset)


ADDITION = Kernel(
    "mve/add", "td_add_mve", _add, add_params, add_constants, whole=_add_whole, by_rows=True
)
AVERAGE = Kernel("mve/average_pool_2d", "td_average_pool_2d_mve", _average, by_rows=True)
MEAN_PIXELS = Kernel("mve/mean", "td_mean_mve", _mean, mean_params)
