"""Offer the sum of two tensors for RV32IM: two multiplications and a shift, proven per node."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops.base import Kernel, Site
from tinydeploy.ops.layout import PLAIN

LEFT_SHIFT = 20  # TFLite add.cc


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_add_rv32_params."""

    count: int
    a_multiplier: int
    b_multiplier: int
    addend: int
    shift: int
    clamp_min: int
    clamp_max: int


@dataclass(frozen=True, slots=True)
class Line:
    """Hold out = clamp((a * a_multiplier + b * b_multiplier + addend) >> shift)."""

    a_multiplier: int
    b_multiplier: int
    addend: int
    shift: int


def line(site: Site) -> Line | None:
    """Return a linear formula equal to the operator for all 65,536 pairs of inputs, or None."""
    from tinydeploy.ops._addsub import params as portable

    sign = -1 if site.call.node.op == "SUB" else 1
    p = portable(site.call, sign)
    return _line(
        p.a_offset, p.a_multiplier, p.a_shift, p.b_offset, p.b_multiplier, p.b_shift,
        p.out_offset, p.out_multiplier, p.out_shift, p.clamp_min, p.clamp_max,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _line(
    a_offset: int, a_multiplier: int, a_shift: int, b_offset: int, b_multiplier: int,
    b_shift: int, out_offset: int, out_multiplier: int, out_shift: int, low: int, high: int,
) -> Line | None:  # fmt: skip
    x = np.arange(-128, 128, dtype=np.int64)
    left = requantize((x + a_offset) << LEFT_SHIFT, a_multiplier, a_shift, single=False)
    right = requantize((x + b_offset) << LEFT_SHIFT, b_multiplier, b_shift, single=False)
    out = requantize(
        left[:, None] + right[None, :], out_multiplier, out_shift, single=False
    )  # fmt: skip
    out = np.clip(out + out_offset, low, high)
    common = out_multiplier * 2.0 ** (out_shift - 31 + LEFT_SHIFT)
    slope_a = a_multiplier * 2.0 ** (a_shift - 31) * common
    slope_b = b_multiplier * 2.0 ** (b_shift - 31) * common
    for shift in range(30, 7, -1):
        m_a, m_b = round(slope_a * 2**shift), round(slope_b * 2**shift)
        for d_a, d_b in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1)):
            value = (x * (m_a + d_a))[:, None] + (x * (m_b + d_b))[None, :]
            # (value + addend) >> shift == out wherever the clamp does not decide
            least = np.where(out > low, (out << shift) - value, np.iinfo(np.int64).min).max()
            most = np.where(
                out < high, ((out + 1) << shift) - 1 - value, np.iinfo(np.int64).max
            ).min()
            if least > most or low == high:
                continue
            least, most = max(int(least), -(2**40)), min(int(most), 2**40)
            addend = (least + most) // 2
            ends = (value.min() + addend, value.max() + addend, value.min(), value.max(), addend)
            if all(-(2**31) <= e < 2**31 for e in ends):
                return Line(m_a + d_a, m_b + d_b, addend, shift)
    return None


def accepts(site: Site) -> bool:
    if site.isa != "rv32imac" or site.optimize == "size" or not site.call.output.elements:
        return False
    call = site.call
    if any(call.input(k).constant or call.input(k).shape != call.output.shape for k in range(2)):
        return False
    return line(site) is not None


def _whole(site: Site) -> bool:
    return site.input_layout(0) == site.input_layout(1) == site.output_layout == PLAIN


def params(site: Site) -> Params:
    from tinydeploy.ops._addsub import params as portable

    found = line(site)
    assert found is not None
    p = portable(site.call, 1)
    width, channels = elementwise.strides(site.call)[:2]
    count = site.call.output.elements if _whole(site) else width * channels
    return Params(
        count, found.a_multiplier, found.b_multiplier, found.addend, found.shift,
        p.clamp_min, p.clamp_max,
    )  # fmt: skip


ADD: tuple[Kernel, ...] = (
    Kernel("rv32/add", "td_add_rv32", accepts=accepts, params=params, whole=_whole, by_rows=True),
)
