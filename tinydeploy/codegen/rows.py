"""Turn the places of a streamed tensor's rows into the C expression for the address of row y."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.codegen.constants import Constants
from tinydeploy.codegen.regions import Region, expression, region_at
from tinydeploy.plan.layout import MemoryPlan


@dataclass(frozen=True, slots=True)
class RowsAt:
    """Say in C where the rows of a tensor are: row y at base + y * pitch, at base + (y % ring) *
    pitch, or at base + table[y % ring] * pitch; a ring of 0 is none.
    """

    base: str
    pitch: int
    ring: int = 0
    table: str = ""
    far: bool = False  # the table's entries have 32 bits, not 16


def rows_at(
    plan: MemoryPlan, index: int, constants: Constants, regions: tuple[Region, ...]
) -> RowsAt | None:
    """Say where the rows are of a tensor that only a streamed segment knows; None for others."""
    if index not in plan.items.rows:
        return None
    places = np.array(plan.row_offsets(index), np.int64)
    period = next(n for n in range(1, len(places) + 1) if np.array_equal(places[n:], places[:-n]))
    places, ring = places[:period], period if period < len(places) else 0
    steps = {*np.diff(places).tolist()}
    base = int(places.min())
    if len(steps) <= 1 and base == places[0]:
        return RowsAt(expression(regions, base), steps.pop() if steps else 0, ring)
    region = region_at(regions, base)
    places = places - region.offset
    unit = int(np.gcd.reduce(places))
    far = int(places.max()) // unit >= 1 << 16
    words = (places // unit).astype(np.uint32 if far else np.uint16)
    table = constants.name(words, f"rows_of_{index}")
    return RowsAt(expression(regions, region.offset), unit, ring, table, far)
