"""DEQUANTIZE: leave to float at the border; inside a network it is refused."""

from __future__ import annotations

from tinydeploy.numerics.fixedpoint import dequantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Op


def at_the_border(call: Call) -> str | None:
    """Float numbers appear only at the model's inputs and outputs."""
    return f"'{call.node.name}' makes float tensor '{call.output.name}' inside the network"


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    return [dequantize(values[0], call.input().scale, call.input().zero_point)]


OP = Op(
    name="DEQUANTIZE",
    summary="float output at the model's border only; folded into the interface",
    parse=lambda reader: None,
    checks=(at_the_border,),
    shape=lambda call: [call.input().shape],
    reference=reference,
    kernels=(),
)
