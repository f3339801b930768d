"""ELU: keep positive elements, apply exp(x) - 1 to the others."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array

_expm1 = lookup.rounded_once(np.expm1)


def _elu(x: Array) -> Array:
    return np.where(x < 0, _expm1(np.minimum(x, 0)), x)


OP = lookup.make(
    "ELU",
    "exponential linear unit through an exact 256-entry table",
    lambda call, profile: lookup.float_table(call, _elu),
    lambda call: _elu,
)
