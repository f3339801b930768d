"""EXP: apply the exponential function to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup

_exp = lookup.rounded_once(np.exp)

OP = lookup.make(
    "EXP",
    "exponential through an exact 256-entry table",
    lambda call, profile: lookup.float_table(call, _exp),
    lambda call: _exp,
)
