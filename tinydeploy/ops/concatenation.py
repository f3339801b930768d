"""CONCATENATION: join tensors along one axis."""

from __future__ import annotations

import math
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
    portable_bytes,
)
from tinydeploy.ops.checks import int8_or_int16, same_quantization, shape4


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the axis, non-negative."""

    axis: int


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_concatenation_params: a row is `repeats` times one chunk of each input."""

    inputs: int
    repeats: int
    chunks: Array  # int32 [inputs], bytes


def parse(reader: Any) -> Attributes:
    from tflite import ConcatenationOptions

    options = reader.options(ConcatenationOptions)
    if reader.activation(options.FusedActivationFunction()) != "NONE":
        reader.refuse("a fused activation")
    rank, axis = len(reader.shape(0)), int(options.Axis())
    if not -rank <= axis < rank:
        reader.refuse(f"axis {axis} of tensors of rank {rank}")
    return Attributes(axis % rank)


def shapes_agree(call: Call) -> str | None:
    """All inputs have the same shape but for the joined axis; at most 32; rows join at batch 1."""
    axis = call.attributes.axis
    shapes = [t.shape for t in call.inputs if t is not None]
    if not 0 <= axis < len(shapes[0]):
        return f"axis {axis} of {list(shapes[0])}"
    if len({(len(s), *s[:axis], *s[axis + 1 :]) for s in shapes}) != 1 or len(shapes) > 32:
        return f"{[list(s) for s in shapes]} along axis {axis}"
    if axis + 4 - len(shapes[0]) < 2 and math.prod(shapes[0][:axis]) != 1:
        return f"{list(shapes[0])} along axis {axis}"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    axis = call.attributes.axis
    shapes = [t.shape for t in call.inputs if t is not None]
    joined = sum(s[axis] for s in shapes)
    return [(*shapes[0][:axis], joined, *shapes[0][axis + 1 :])]


def _inner_axis(call: Call) -> int:
    """The joined axis in the 4-D view: 3 channels, 2 width, 1 or less height."""
    axis: int = call.attributes.axis
    return axis + 4 - len(call.output.shape)


def params(call: Call, profile: IntegerProfile) -> Params:
    shapes = [shape4(t.shape) for t in call.inputs if t is not None]
    axis = _inner_axis(call)
    if axis == 3:
        repeats, chunks = shapes[0][2], [s[3] for s in shapes]
    else:
        repeats, chunks = 1, [s[2] * s[3] for s in shapes]
    size = call.output.dtype.size
    return Params(len(chunks), repeats, np.array(chunks, np.int32) * np.int32(size))


def region(call: Call) -> tuple[RowSource, ...]:
    count = len(call.node.inputs)
    if _inner_axis(call) >= 2:
        return tuple(RowSource(k) for k in range(count))
    starts = np.cumsum([0] + [call.input(k).rows for k in range(count)])
    return tuple(RowSource(k, offset=-int(starts[k])) for k in range(count))


def inside(call: Call) -> tuple[Inside, ...]:
    """Parts follow each other in memory when every axis outside the joined one has size 1.

    Images joined side by side are columns of one.
    """
    pitch = 0
    if math.prod(call.output.shape[: call.attributes.axis]) != 1:
        if len(call.output.shape) != 4 or call.attributes.axis != 2:
            return ()
        pitch = call.output.row_bytes
    places, start = [], 0
    for index in call.node.inputs:
        assert index is not None
        places.append(Inside(index, call.node.outputs[0], start, pitch))
        part = call.graph.tensors[index]
        start += part.row_bytes if pitch else part.bytes
    return tuple(places)


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    return [np.concatenate(values, axis=call.attributes.axis)]


def stored(call: Call) -> Stored:
    return {"Axis": call.attributes.axis}, []


OP = Op(
    name="CONCATENATION",
    summary="join along any axis, equal quantisation",
    parse=parse,
    checks=(int8_or_int16, same_quantization, shapes_agree),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    params=params,
    region=region,
    inputs=lambda call: tuple(range(len(call.node.inputs))),
    inside=inside,
    kernels=portable_bytes("concatenation"),
)
