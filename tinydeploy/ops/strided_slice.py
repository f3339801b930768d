"""STRIDED_SLICE: take every n-th element of a range along each axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import (
    Array,
    Call,
    Inside,
    Op,
    RowSource,
    Stored,
    alike_on_floats,
    portable,
)
from tinydeploy.ops.checks import int8_or_int16, same_quantization, shape4


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold first index, stride and count per input axis, and the axes that vanish."""

    begin: tuple[int, ...]
    stride: tuple[int, ...]
    count: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_strided_slice_params: columns and channels within one row, in elements."""

    first: int
    width: int
    channels: int
    stride_w: int
    stride_c: int


def parse(reader: Any) -> Attributes:
    """Resolve masks and negative indices (TFLite strided_slice_logic.h)."""
    from tflite import StridedSliceOptions

    options = reader.options(StridedSliceOptions)
    shape = reader.shape(0)
    begin, end, stride = (
        [int(v) for v in np.atleast_1d(reader.constant(k, what))]
        for k, what in ((1, "begin"), (2, "end"), (3, "strides"))
    )
    if options.EllipsisMask() or options.NewAxisMask():
        reader.refuse("an ellipsis or a new axis")
    if not len(begin) == len(end) == len(stride) <= len(shape) or 0 in stride:
        reader.refuse(f"begin {begin}, end {end}, strides {stride} of {list(shape)}")
    firsts, counts, dropped = [], [], []
    for axis, size in enumerate(shape):
        if axis >= len(begin):
            firsts.append(0)
            counts.append(size)
            continue
        bit, step = 1 << axis, stride[axis]
        low, high = (0, size) if step > 0 else (-1, size - 1)
        index = begin[axis] + (size if begin[axis] < 0 else 0)
        first = min(max(index, low), high)
        if options.BeginMask() & bit:
            index = first = 0 if step > 0 else size - 1
        if options.ShrinkAxisMask() & bit:
            if not 0 <= index < size:
                reader.refuse(f"index {begin[axis]} of an axis of {size}")
            firsts.append(index)
            counts.append(1)
            dropped.append(axis)
            continue
        last = end[axis]
        if options.Offset():
            masked = (options.BeginMask() | options.EndMask()) & bit
            if masked or begin[axis] < 0 or last < 0 or begin[axis] + last > size:
                reader.refuse("an offset that is masked, negative or leaves the axis")
            last += first
        last = min(max(last + (size if last < 0 else 0), low), high)
        if options.EndMask() & bit:
            last = high if step > 0 else low
        firsts.append(first)
        counts.append(len(range(first, last, step)))
    steps = [*stride, *([1] * (len(shape) - len(stride)))]
    return Attributes(tuple(firsts), tuple(steps), tuple(counts), tuple(dropped))


def rank_at_most_4(call: Call) -> str | None:
    """The input has at most 4 axes, none is left empty, and a batch above 1 is taken whole."""
    a, shape = call.attributes, call.input().shape
    if len(shape) > 4 or 0 in a.count:
        return f"{list(a.count)} of {list(shape)}"
    if len(shape) == 4 and shape[0] != 1:
        return f"batch {shape[0]}"
    return None


def inside_the_input(call: Call) -> str | None:
    """Everything that is taken lies inside the input."""
    a = call.attributes
    for size, first, step, count in zip(
        call.input().shape, a.begin, a.stride, a.count, strict=True
    ):
        last = first + step * (count - 1)
        if not (0 <= first < size and 0 <= last < size):
            return f"{first} to {last} of an axis of {size}"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    a = call.attributes
    return [tuple(c for axis, c in enumerate(a.count) if axis not in a.dropped)]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    a = call.attributes
    indices = [b + s * np.arange(c) for b, s, c in zip(a.begin, a.stride, a.count, strict=True)]
    return [values[0][np.ix_(*indices)].reshape(call.output.shape)]


def _axes(call: Call) -> list[tuple[int, int, int]]:
    """(begin, stride, count) of batch, height, width, channels."""
    a = call.attributes
    own = list(zip(a.begin, a.stride, a.count, strict=True))
    return [(0, 1, 1)] * (4 - len(own)) + own


def params(call: Call, profile: IntegerProfile) -> Params:
    _, _, (first_w, stride_w, width), (first_c, stride_c, channels) = _axes(call)
    depth = shape4(call.input().shape)[3]
    return Params(first_w * depth + first_c, width, channels, stride_w * depth, stride_c)


def rows(call: Call) -> int:
    """Rows of the output as the input counts them; an axis that vanished may hide them."""
    return _axes(call)[1][2]


def region(call: Call) -> tuple[RowSource, ...]:
    first, stride, _ = _axes(call)[1]
    return (RowSource(0, stride=stride, offset=first),)


def inside(call: Call) -> tuple[Inside, ...]:
    """What is taken lies in one piece when one axis is cut, those outside it have one index left,
    and those inside it are whole.
    """
    a, shape = call.attributes, call.input().shape
    cut = next((axis for axis, count in enumerate(a.count) if count > 1), len(shape))
    strides = [s if c > 1 else 1 for s, c in zip(a.stride, a.count, strict=True)]
    if a.count[cut + 1 :] != shape[cut + 1 :] or strides[cut:] != [1] * len(strides[cut:]):
        return ()
    start = int(np.ravel_multi_index(a.begin, shape)) if shape else 0
    index = call.node.inputs[0]
    assert index is not None
    return (Inside(call.node.outputs[0], index, start * call.input().dtype.size),)


def stored(call: Call) -> Stored:
    a = call.attributes
    ends = [b + s * c for b, s, c in zip(a.begin, a.stride, a.count, strict=True)]
    options = {
        "EndMask": sum(1 << axis for axis, end in enumerate(ends) if end < 0),
        "ShrinkAxisMask": sum(1 << axis for axis in a.dropped),
    }
    return options, [np.array(v, np.int32) for v in (a.begin, ends, a.stride)]


OP = Op(
    name="STRIDED_SLICE",
    summary="ranges with any stride along up to 4 axes, axes may vanish",
    parse=parse,
    checks=(int8_or_int16, same_quantization, inside_the_input, rank_at_most_4),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    params=params,
    region=region,
    rows=rows,
    inside=inside,
    kernels=portable("strided_slice"),
)
