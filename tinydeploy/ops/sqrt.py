"""SQRT: apply the square root to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


def table(call: Call, profile: IntegerProfile) -> Array:
    """Divide the root by the output's scale in float32 and round towards zero, as LiteRT does.

    Found by comparing with ai-edge-litert 2.3.0. 0 below 0, where LiteRT refuses to run.
    """
    root = np.sqrt(np.maximum(lookup.real_values(call), 0))
    steps = np.minimum(np.trunc(root / np.float32(call.output.scale)), 512)
    return np.clip(steps.astype(np.int64) + call.output.zero_point, -128, 127).astype(np.int8)


OP = lookup.make(
    "SQRT",
    "square root through an exact 256-entry table; 0 below zero",
    table,
    lambda call: np.sqrt,
)
