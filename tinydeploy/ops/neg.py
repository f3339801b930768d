"""NEG: change the sign of each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Call
from tinydeploy.ops.checks import same_quantization


def zero_point_is_zero(call: Call) -> str | None:
    """The zero point is 0: LiteRT negates stored values as they are."""
    zero = call.output.zero_point
    return None if zero == 0 else f"it is {zero}"


OP = lookup.make(
    "NEG",
    "negation through an exact 256-entry table; -128 stays, as in LiteRT",
    # TensorFlow Lite, reference/neg.h: the cast to int8 wraps.
    lambda call, profile: (-lookup.stored_values()).astype(np.int8),
    lambda call: np.negative,
    checks=(same_quantization, zero_point_is_zero),
)
