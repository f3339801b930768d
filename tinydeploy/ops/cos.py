"""COS: apply the cosine to each element."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops import _lookup as lookup

OP = lookup.make(
    "COS",
    "cosine through an exact 256-entry table",
    lambda call, profile: lookup.exact_table(call, np.cos),
    lambda call: np.cos,
)
