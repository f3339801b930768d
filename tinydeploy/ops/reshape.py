"""RESHAPE: see the same bytes under another shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Inside, Op, Stored, alike_on_floats
from tinydeploy.ops.checks import int8_or_int16, same_quantization


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the new shape, all sizes known."""

    shape: tuple[int, ...]


def parse(reader: Any) -> Attributes:
    """Take the shape from the second input, else from the options, else from the output."""
    wanted: tuple[int, ...] | None = None
    if reader.has_constant(1):
        wanted = tuple(map(int, np.atleast_1d(reader.constant(1, "shape"))))
    if wanted is None:
        wanted = reader.output_shape(0)
    elements = math.prod(reader.shape(0))
    known = math.prod(s for s in wanted if s != -1)
    if wanted.count(-1) == 1 and known > 0 and elements % known == 0:
        wanted = tuple(elements // known if s == -1 else s for s in wanted)
    if any(s < 0 for s in wanted) or math.prod(wanted) != elements:
        reader.refuse(f"{list(reader.shape(0))} to {list(wanted)}")
    return Attributes(wanted)


def same_elements(call: Call) -> str | None:
    """The new shape has as many elements as the old one."""
    wanted, given = call.attributes.shape, call.input().shape
    return None if math.prod(wanted) == math.prod(given) else f"{list(given)} to {list(wanted)}"


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    return [values[0].reshape(call.output.shape)]


def inside(call: Call) -> tuple[Inside, ...]:
    (outer, *_), (inner,) = call.node.inputs, call.node.outputs
    return () if outer is None else (Inside(inner, outer, 0),)


def stored(call: Call) -> Stored:
    return {}, [np.array(call.attributes.shape, np.int32)]


OP = Op(
    name="RESHAPE",
    summary="new shape over the same bytes; costs nothing",
    parse=parse,
    checks=(int8_or_int16, same_quantization, same_elements),
    shape=lambda call: [call.attributes.shape],
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    kernels=(),
    inside=inside,
    view=True,
)
