"""Turn scales into the vectors of constants that the kernels for RVV requantise with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops.base import Array, Site

ISA = "rv32imac-rvv"
LANES = 32  # 32-bit elements of a register group of 8 vectors of 128 bits


@dataclass(frozen=True, slots=True)
class Scaling:
    """Hold the requantisation of rvv/lines.c.j2: shift left, multiply, round, shift."""

    multiplier: Array  # int32
    left: Array  # int32
    right: Array  # int16
    mask: Array  # int32, -1 where halves must be rounded away from zero
    fix: int  # 0: nowhere, 1: in all channels, 2: where the mask says
    once: int
    clamp: int

    def flags(self) -> dict[str, int]:
        """Return what the template is rendered with."""
        return {
            "left": int(self.left.any()), "fix": self.fix, "once": self.once, "clamp": self.clamp,
        }  # fmt: skip


def for_vectors(site: Site) -> bool:
    """Tell whether vectors are there and speed is wanted."""
    return site.isa == ISA and site.optimize != "size" and site.call.output.elements > 0


def scaling(
    multiplier: Array, shift: Array, zero: int, clamp: tuple[int, int], once: bool, bound: int
) -> Scaling | None:
    """Return the scaling of accumulators of magnitude up to `bound`, None if it is not exact."""
    wide = shift.astype(np.int32)
    left = np.maximum(wide + 2 if once else wide, 0).astype(np.int32)
    if once and bound << int(left.max()) >= 2**31:
        return None
    right = left - wide - (1 if once else 0)
    mask = np.where(right > 0, -1, 0).astype(np.int32)
    fix = 2 if 0 in mask else 1
    if once or clamp[0] >= zero or not mask.any():
        fix = 0
    return Scaling(
        multiplier.astype(np.int32), left, right.astype(np.int16), mask, fix, int(once),
        int(clamp != (-128, 127)),
    )  # fmt: skip


def folded_bias(total: Array, bias: Array, zero: int) -> Array:
    """Return bias - zero * total per channel modulo 2^32; total is the sum of its weights."""
    folded = bias.astype(np.int64) - zero * total.astype(np.int64)
    return (folded & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def present(array: Array, needed: bool) -> Array:
    """Return an array, or one element in its place when the kernel does not read it."""
    return array if needed else array[:1]
