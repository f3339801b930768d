"""LOG: apply the natural logarithm to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array

_positive = lookup.rounded_once(np.log)


def _log(x: Array) -> Array:
    """Return minus infinity, which saturates, for what has no logarithm."""
    return np.where(x > 0, _positive(x), -np.inf).astype(x.dtype)


OP = lookup.make(
    "LOG",
    "natural logarithm through an exact 256-entry table; the least value below zero",
    lambda call, profile: lookup.float_table(call, _log),
    lambda call: _positive,
)
