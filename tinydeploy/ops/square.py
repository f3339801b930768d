"""SQUARE: apply the square to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup

OP = lookup.make(
    "SQUARE",
    "square through an exact 256-entry table",
    lambda call, profile: lookup.exact_table(call, np.square),
    lambda call: np.square,
)
