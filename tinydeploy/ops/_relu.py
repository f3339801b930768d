"""Share the arithmetic of the clamps RELU, RELU6, RELU_N1_TO_1 and RELU_0_TO_1."""

from __future__ import annotations

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_float, quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call, Op


def make(name: str, low: float, high: float) -> Op:
    """Return the operator that clamps to [low, high]."""

    def table(call: Call, profile: IntegerProfile) -> Array:
        """Requantise, then clamp (TensorFlow Lite, activations.cc, QuantizedReluX)."""
        inp, out = call.input(), call.output
        x = lookup.stored_values() - inp.zero_point
        scaled = requantize(x, *quantize_multiplier(lookup.ratio(call)), single=False)
        bounds = quantize_float(np.array([low, high]), out.scale, out.zero_point, "int8")
        return np.clip(scaled + out.zero_point, *bounds.astype(np.int64)).astype(np.int8)

    text = f"clamp to [{low:g}, {high:g}]" if np.isfinite(high) else f"clamp to at least {low:g}"
    return lookup.make(
        name,
        f"{text}, through an exact 256-entry table",
        table,
        lambda call: lambda x: np.clip(x, low, high),
        checks=(lookup.ratio_in_range,),
    )
