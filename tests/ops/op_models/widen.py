"""Make WIDEN models: those of NARROW, which it follows."""

from __future__ import annotations

from op_models.narrow import ROUNDS as ROUNDS
from op_models.narrow import drawn as drawn
from op_models.narrow import fixed as fixed
