"""TRANSPOSE: reorder the axes of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Op, Stored, alike_on_floats, portable
from tinydeploy.ops.checks import int8_or_int16, same_quantization


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold, for each axis of the output, the axis of the input it comes from."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_transpose_params: output sizes, and the input's stride along each, in elements."""

    size_0: int
    size_1: int
    size_2: int
    size_3: int
    stride_0: int
    stride_1: int
    stride_2: int
    stride_3: int


def parse(reader: Any) -> Attributes:
    rank = len(reader.shape(0))
    order = [int(a) for a in np.atleast_1d(reader.constant(1, "permutation"))]
    order = [a + rank if a < 0 else a for a in order]
    if sorted(order) != list(range(rank)):
        reader.refuse(f"permutation {order} of a tensor of rank {rank}")
    return Attributes(tuple(order))


def is_permutation(call: Call) -> str | None:
    """The permutation names every axis once."""
    order, rank = call.attributes.permutation, len(call.input().shape)
    return None if sorted(order) == list(range(rank)) else f"{list(order)} of {rank} axes"


def rank_at_most_4(call: Call) -> str | None:
    """The tensor has at most 4 axes."""
    rank = len(call.input().shape)
    return None if rank <= 4 else f"rank {rank}"


def shape(call: Call) -> list[tuple[int, ...]]:
    return [tuple(call.input().shape[a] for a in call.attributes.permutation)]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    return [np.ascontiguousarray(values[0].transpose(call.attributes.permutation))]


def params(call: Call, profile: IntegerProfile) -> Params:
    inp = call.input().shape
    strides = [int(np.prod(inp[a + 1 :], dtype=np.int64)) for a in range(len(inp))]
    order = call.attributes.permutation
    missing = 4 - len(inp)
    return Params(
        *([1] * missing), *(inp[a] for a in order), *([0] * missing), *(strides[a] for a in order)
    )


def stored(call: Call) -> Stored:
    return {}, [np.array(call.attributes.permutation, np.int32)]


OP = Op(
    name="TRANSPOSE",
    summary="any order of up to 4 axes",
    parse=parse,
    checks=(int8_or_int16, same_quantization, is_permutation, rank_at_most_4),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    params=params,
    kernels=portable("transpose"),
)
