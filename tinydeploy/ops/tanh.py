"""TANH: apply the hyperbolic tangent to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ir import DType, Quantization
from tinydeploy.numerics.gemmlowp import tanh_int8
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call
from tinydeploy.ops.logistic import scale_in_range


def output_is_signed_fraction(call: Call) -> str | None:
    """The output has scale 1/128 and zero point 0."""
    out = call.output
    if out.scale == 1 / 128 and out.zero_point == 0:
        return None
    return f"scale {out.scale:.7g}, zero point {out.zero_point}"


_tanh = lookup.rounded_once(np.tanh)


def table(call: Call, profile: IntegerProfile) -> Array:
    """Return the float32 function or gemmlowp's fixed-point one, as the profile says.

    TensorFlow Lite: activations.cc, TanhPrepare; reference_integer_ops::Tanh.
    """
    if "TANH" in profile.float_tables:
        return lookup.float_table(call, _tanh)
    inp = call.input()
    return tanh_int8(lookup.stored_values(), inp.scale, inp.zero_point).astype(np.int8)


OP = lookup.make(
    "TANH",
    "hyperbolic tangent through an exact 256-entry table",
    table,
    lambda call: _tanh,
    checks=(output_is_signed_fraction, scale_in_range),
    fixed_output={DType.INT8: Quantization((1 / 128,), (0,))},
)
