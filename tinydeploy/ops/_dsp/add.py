"""Turn ADD and SUB into one scaled sum per element, proved equal over all pairs of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType
from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops import _addsub as addsub
from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops._addsub import of_node
from tinydeploy.ops._dsp.requant import is_dsp
from tinydeploy.ops.base import Kernel, Site

Array = NDArray[Any]

LEFT_SHIFT = addsub.LEFT_SHIFT[DType.INT8]
SHIFTS = (20, 18, 22)  # fraction bits of the sum, the usual one first
_BYTES = np.arange(-128, 128, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_add_dsp_params."""

    count: int
    a_multiplier: int
    b_multiplier: int
    addend: int
    clamp: int
    clamp_min: int
    clamp_max: int


@dataclass(frozen=True, slots=True)
class Sum:
    """Hold a, b, c, s with output = (floor(a x / 256) + floor(b y / 256) + c) >> s, saturated."""

    a: int
    b: int
    addend: int
    shift: int


def table(p: addsub.Params) -> Array:
    """Return what TFLite's arithmetic gives for all pairs of bytes, int8 range, as [256, 256]."""

    def scaled(offset: int, multiplier: int, shift: int) -> Array:
        return requantize(
            (_BYTES + offset) << LEFT_SHIFT, multiplier, shift, single=False
        )  # fmt: skip

    total = (
        scaled(p.a_offset, p.a_multiplier, p.a_shift)[:, None]
        + p.b_sign * scaled(p.b_offset, p.b_multiplier, p.b_shift)[None, :]
    )
    out = requantize(total, p.out_multiplier, p.out_shift, single=False) + p.out_offset
    return np.clip(out, -128, 127)


def addend_of(wanted: Array, a: int, b: int, shift: int) -> int | None:
    """Return a constant that makes the sum exact for every pair of bytes, if there is one."""
    value = ((a * _BYTES) >> 8)[:, None] + ((b * _BYTES) >> 8)[None, :]
    # A threshold k separates values by wanted >= k: the constant lifts it onto k << shift.
    low = np.full(257, 2**62)
    np.minimum.at(low, (wanted + 128).ravel(), value.ravel())
    high = np.full(257, -(2**62))
    np.maximum.at(high, (wanted + 128).ravel(), value.ravel())
    least_above = np.minimum.accumulate(low[::-1])[::-1][1:256]
    most_below = np.maximum.accumulate(high)[0:255]
    edges = np.arange(-127, 128, dtype=np.int64) << shift
    lower = int((edges - least_above).max())
    upper = int((edges - 1 - most_below).min())
    if lower > upper:
        return None
    c = min(max((lower + upper) // 2, lower), upper)
    extremes = (int(value.min()) + c, int(value.max()) + c)
    partial = abs(c) + 128 * (abs(a) >> 8) + 1
    return c if max(abs(extremes[0]), abs(extremes[1]), partial) < 2**31 else None


@lru_cache(maxsize=256)
def solve(p: addsub.Params) -> Sum | None:
    """Find the scaled sum that equals TFLite's for all 65536 pairs of inputs, or None.

    The multipliers are the real scales at first, then their neighbours.
    """
    wanted = table(p)
    scale = p.out_multiplier * 2.0 ** (p.out_shift - 31 + LEFT_SHIFT)
    a = p.a_multiplier * 2.0 ** (p.a_shift - 31) * scale
    b = p.b_sign * p.b_multiplier * 2.0 ** (p.b_shift - 31) * scale
    near = sorted(
        ((i, j) for i in range(-3, 4) for j in range(-3, 4)), key=lambda d: abs(d[0]) + abs(d[1])
    )
    for shift in SHIFTS:
        first, second = round(a * 2.0 ** (shift + 8)), round(b * 2.0 ** (shift + 8))
        if max(abs(first), abs(second)) >= 2**31 - 4096:
            continue
        for i, j in near:
            ma, mb = first + i * 64, second + j * 64
            c = addend_of(wanted, ma, mb, shift)
            if c is not None:
                return Sum(ma, mb, c, shift)
    return None


def _accepts(site: Site) -> bool:
    if not is_dsp(site) or site.optimize == "size" or site.call.output.elements == 0:
        return False
    p = of_node(site.call)
    same = site.call.input(0).shape == site.call.input(1).shape == site.call.output.shape
    return same and solve(p) is not None


def _params(site: Site) -> Params:
    p = of_node(site.call)
    found = solve(p)
    assert found is not None
    count = site.call.output.elements if elementwise.is_one_row(site) else p.width * p.channels
    clamp = int((p.clamp_min, p.clamp_max) != (-128, 127))
    return Params(count, found.a, found.b, found.addend, clamp, p.clamp_min, p.clamp_max)


def _constants(site: Site) -> dict[str, int]:
    found = solve(of_node(site.call))
    assert found is not None
    return {"shift": found.shift}


ADD = (
    Kernel(
        "dsp/add", "td_add_dsp", _accepts, _params, _constants,
        whole=elementwise.is_one_row, by_rows=True,
    ),
)  # fmt: skip
