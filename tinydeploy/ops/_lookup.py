"""Share what functions of one int8 value have in common: an exact 256-entry table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops.base import Array, Call, RowSource


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_lookup_params."""

    row_bytes: int
    table: Array  # int8 [256], indexed by the stored value + 128


def stored_values() -> Array:
    """All int8 values in the order of a table."""
    return np.arange(-128, 128, dtype=np.int64)


def region(call: Call) -> tuple[RowSource, ...]:
    return (RowSource(),)


def in_place(call: Call, position: int) -> bool:
    return True
