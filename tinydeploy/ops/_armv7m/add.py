"""Turn ADD and SUB into one scaled sum per element, proved equal over all pairs of inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinydeploy.ops import _elementwise as elementwise
from tinydeploy.ops._addsub import Params as Node
from tinydeploy.ops._addsub import of_node
from tinydeploy.ops._dsp.add import LEFT_SHIFT, table
from tinydeploy.ops.base import Array, Kernel, Site

_BYTES = np.arange(-128, 128, dtype=np.int64)
_SHIFTS = (20, 21, 19, 22, 18)  # fraction bits of the sum


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_add_armv7m_params: output = (a x + b y + addend) >> shift, saturated."""

    count: int
    a_multiplier: int
    b_multiplier: int
    addend: int
    clamp_min: int
    clamp_max: int


def addend_of(wanted: Array, a: int, b: int, shift: int) -> int | None:
    """Return a constant that makes the sum exact for every pair of bytes, if there is one."""
    value = (a * _BYTES)[:, None] + (b * _BYTES)[None, :]
    # Each step of the output, k - 1 to k, must lie at the same sum: all values below it stay below.
    low, high = np.full(256, 2**62), np.full(256, -(2**62))
    np.minimum.at(low, (wanted + 128).ravel(), value.ravel())
    np.maximum.at(high, (wanted + 128).ravel(), value.ravel())
    least_above = np.minimum.accumulate(low[::-1])[::-1][1:]
    most_below = np.maximum.accumulate(high)[:-1]
    edges = np.arange(-127, 128, dtype=np.int64) << shift
    lower, upper = int((edges - least_above).max()), int((edges - 1 - most_below).min())
    if lower > upper:
        return None
    c = (lower + upper) // 2
    return c if abs(c) + 128 * (abs(a) + abs(b)) < 2**31 else None


@lru_cache(maxsize=256)
def solve(p: Node) -> tuple[int, int, int, int] | None:
    """Find (a, b, addend, shift) that equal TFLite's sum for all 65536 pairs of inputs, or None.

    The multipliers are the real scales at first, then their neighbours.
    """
    wanted = table(p)
    scale = p.out_multiplier * 2.0 ** (p.out_shift - 31 + LEFT_SHIFT)
    a = p.a_multiplier * 2.0 ** (p.a_shift - 31) * scale
    b = p.b_sign * p.b_multiplier * 2.0 ** (p.b_shift - 31) * scale
    for shift in _SHIFTS:
        first, second = round(a * 2.0**shift), round(b * 2.0**shift)
        for i, j in np.ndindex(7, 7):
            ma, mb = first + (i + 1) // 2 * (-1) ** i, second + (j + 1) // 2 * (-1) ** j
            if 128 * (abs(ma) + abs(mb)) < 2**31:
                c = addend_of(wanted, ma, mb, shift)
                if c is not None:
                    return ma, mb, c, shift
    return None


def accepts(site: Site) -> bool:
    """Accept tensors of one shape for which a sum was found."""
    call = site.call
    if call.output.elements == 0 or site.optimize == "size":
        return False
    same = call.input(0).shape == call.input(1).shape == call.output.shape
    return same and solve(of_node(site.call)) is not None


def params(site: Site) -> Params:
    p = of_node(site.call)
    found = solve(p)
    assert found is not None
    count = site.call.output.elements if elementwise.is_one_row(site) else p.width * p.channels
    return Params(count, *found[:3], p.clamp_min, p.clamp_max)


def constants(site: Site) -> dict[str, int]:
    p = of_node(site.call)
    found = solve(p)
    assert found is not None
    return {
        "shift": found[3],
        "clamp": int((p.clamp_min, p.clamp_max) != (-128, 127)),
        "thumb1": int(site.isa == "armv6-m"),
    }


SUMS = (
    Kernel(
        "armv7m/add",
        "td_add_armv7m",
        accepts=lambda site: site.isa == "armv7-m" and accepts(site),
        params=params,
        constants=constants,
        whole=elementwise.is_one_row,
        by_rows=True,
    ),
)

SUMS_ARMV6M = (
    Kernel(
        "armv7m/add",
        "td_add_armv6m",
        accepts=lambda site: site.isa == "armv6-m" and accepts(site),
        params=params,
        constants=constants,
        whole=elementwise.is_one_row,
        by_rows=True,
    ),
)
