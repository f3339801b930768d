"""ABS: take the absolute value of each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


def table(call: Call, profile: IntegerProfile) -> Array:
    """Requantise where the scales differ (TensorFlow Lite, elementwise.cc, AbsEvalQuantized)."""
    size = np.abs(lookup.stored_values() - call.input().zero_point)
    if call.input().scale != call.output.scale:
        size = requantize(size, *quantize_multiplier(lookup.ratio(call)), single=False)
    result: Array = np.clip(size + call.output.zero_point, -128, 127).astype(np.int8)
    return result


OP = lookup.make(
    "ABS",
    "absolute value through an exact 256-entry table",
    table,
    lambda call: np.abs,
    checks=(lookup.ratio_in_range,),
)
