"""NARROW: hold int8 values as indices of their nearest levels, of 4 or 2 bits each.

The operator is tinydeploy's own: it exists so that a tensor takes a half or a quarter of its
bytes while it waits in memory. WIDEN is its inverse but for the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _levels as levels
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call, Kernel, Op, Stored


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the values that indices stand for, as int8 bytes, ascending: 16 or 4."""

    levels: bytes


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of narrow.c.j2."""

    elements: int
    table: Array  # int8 [256], the index of each stored value + 128


def parse(reader: Any) -> Attributes:
    """Refuse: no model format but .tdm has the operator."""
    raise ModelError("NARROW is stored in .tdm files only")


def stored(call: Call) -> Stored:
    """Refuse: a .tflite cannot say it."""
    raise ModelError(
        "activations of 4 or 2 bits cannot be stored in a .tflite", f"'{call.output.name}'",
        "write a .tdm", call.node.name,
    )  # fmt: skip


def table_of(call: Call) -> Array:
    """Return the index of the nearest level of each stored value, the lower one of two."""
    values = levels.levels_of(call).astype(np.int64)
    return np.searchsorted(
        (values[1:] + values[:-1]) / 2, lookup.stored_values(), side="left"
    ).astype(np.int8)


def shape(call: Call) -> list[tuple[int, ...]]:
    return [levels.packed_shape(call.input().shape, levels.bits_of(call))]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Look the indices up and pack each row."""
    indices = table_of(call)[values[0].astype(np.int64) + 128]
    rows = indices.reshape(-1, levels.row_elements(call.input().shape))
    packed = levels.pack_rows(rows.view(np.uint8), levels.bits_of(call))
    return [packed.reshape(shape(call)[0])]


OP = Op(
    name="NARROW",
    summary="int8 values to indices of 16 or 4 levels, two or four to a byte; in .tdm files",
    parse=parse,
    checks=(levels.bytes_in_out, levels.levels_ascend),
    shape=shape,
    reference=reference,
    params=lambda call, profile: Params(
        levels.row_elements(call.input().shape), table_of(call)
    ),
    region=levels.region,
    kernels=(
        Kernel(
            "narrow", "td_narrow", by_rows=True,
            constants=lambda site: {"bits": levels.bits_of(site.call)},
        ),
    ),
    stored=stored,
)  # fmt: skip
