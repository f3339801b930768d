"""PAD: surround an image with its zero point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Op, RowSource, Stored, alike_on_floats, portable_bytes
from tinydeploy.ops.checks import int8_or_int16, same_quantization, shape4


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold elements to add before and after each axis."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_pad_params: columns, and the bytes of a column's channels, within one row."""

    in_w: int
    in_c: int
    left: int
    right: int
    front: int
    back: int
    value: int


def parse(reader: Any) -> Attributes:
    pads = np.asarray(reader.constant(1, "paddings"))
    rank = len(reader.shape(0))
    if pads.shape != (rank, 2) or pads.min(initial=0) < 0 or pads.max(initial=0) > 1 << 20:
        reader.refuse(f"paddings {pads.tolist()} for a tensor of rank {rank}")
    return Attributes(tuple(map(int, pads[:, 0])), tuple(map(int, pads[:, 1])))


def paddings_fit(call: Call) -> str | None:
    """Each axis has a number of elements to add before and after it, none negative."""
    a, rank = call.attributes, len(call.input().shape)
    fits = len(a.before) == len(a.after) == rank and min(*a.before, *a.after, 0) == 0
    return None if fits else f"{list(a.before)} and {list(a.after)} for {rank} axes"


def batch_not_padded(call: Call) -> str | None:
    """At most the last three axes are padded, and the batch is 1 if the height is."""
    before, after, inp = call.attributes.before, call.attributes.after, call.input().shape
    if len(inp) > 4 or any(before[:-3]) or any(after[:-3]):
        return f"paddings {list(zip(before, after, strict=True))} of {list(inp)}"
    if len(inp) == 4 and inp[0] > 1 and (before[1] or after[1]):
        return f"batch {inp[0]}"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    a = call.attributes
    sizes = zip(a.before, call.input().shape, a.after, strict=True)
    return [tuple(b + s + e for b, s, e in sizes)]


def _last3(pads: tuple[int, ...]) -> tuple[int, int, int]:
    top, left, front = ((0,) * 3 + pads)[-3:]
    return top, left, front


def params(call: Call, profile: IntegerProfile) -> Params:
    _, left, front = _last3(call.attributes.before)
    _, right, back = _last3(call.attributes.after)
    _, _, width, channels = shape4(call.input().shape)
    size = call.input().dtype.size  # the zero point of wider elements is 0, so that bytes will do
    return Params(
        width, channels * size, left, right, front * size, back * size, call.output.zero_point
    )


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Copy the input into a field of zero points."""
    widths = list(zip(call.attributes.before, call.attributes.after, strict=True))
    return [np.pad(values[0], widths, constant_values=call.output.zero_point)]


def region(call: Call) -> tuple[RowSource, ...]:
    return (RowSource(0, offset=-_last3(call.attributes.before)[0]),)


def stored(call: Call) -> Stored:
    return {}, [np.array([call.attributes.before, call.attributes.after], np.int32).T]


OP = Op(
    name="PAD",
    summary="padding of height, width and channels with the zero point",
    parse=parse,
    checks=(int8_or_int16, same_quantization, paddings_fit, batch_not_padded),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    params=params,
    region=region,
    kernels=portable_bytes("pad"),
)
