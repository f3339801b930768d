"""WIDEN: turn indices of 4 or 2 bits into the int8 values of their levels, undoing NARROW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinydeploy.errors import ModelError
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _levels as levels
from tinydeploy.ops.base import Array, Call, Kernel, Op
from tinydeploy.ops.narrow import stored


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the values that indices stand for, as int8 bytes, ascending, and the shape of all."""

    levels: bytes
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of widen.c.j2."""

    elements: int
    table: Array  # int8 [16] or [4]


def parse(reader: Any) -> Attributes:
    """Refuse: no model format but .tdm has the operator."""
    raise ModelError("WIDEN is stored in .tdm files only")


def shape_holds(call: Call) -> str | None:
    """The packed tensor has exactly the bytes of each row."""
    given = call.attributes.shape
    if not given or min(given) < 1:
        return f"shape {list(given)}"
    wanted, found = levels.packed_shape(given, levels.bits_of(call)), call.input().shape
    return None if wanted == found else f"{list(found)} for {list(given)}"


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Unpack each row and look the values up."""
    shape = call.attributes.shape
    packed = values[0].reshape(-1, values[0].shape[-1])
    indices = levels.unpack_rows(packed, levels.bits_of(call), levels.row_elements(shape))
    return [levels.levels_of(call)[indices].reshape(shape)]


OP = Op(
    name="WIDEN",
    summary="indices of 16 or 4 levels, packed by NARROW, to int8 values; in .tdm files",
    parse=parse,
    checks=(levels.bytes_in_out, levels.levels_ascend, shape_holds),
    shape=lambda call: [call.attributes.shape],
    reference=reference,
    params=lambda call, profile: Params(
        levels.row_elements(call.output.shape), levels.levels_of(call)
    ),
    region=levels.region,
    kernels=(
        Kernel(
            "widen", "td_widen", by_rows=True,
            constants=lambda site: {"bits": levels.bits_of(site.call)},
        ),
    ),
    stored=stored,
)  # fmt: skip
