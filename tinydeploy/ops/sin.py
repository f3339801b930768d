"""SIN: apply the sine to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup

OP = lookup.make(
    "SIN",
    "sine through an exact 256-entry table",
    lambda call, profile: lookup.exact_table(call, np.sin),
    lambda call: np.sin,
)
