"""Join the kernel families of all instruction sets, per operator, portable C last.

Kernels that keep sub-byte weights packed come first: they accept such weights only, and none where
speed is all that counts. A family has them as <OPERATOR>_PACKED; portable C serves the others.
"""

from __future__ import annotations

from tinydeploy.ops import _armv6m, _armv7m, _dsp, _mve, _rv32, _rvv
from tinydeploy.ops._packed import PACKED
from tinydeploy.ops.base import Kernel, portable

_FAMILIES = (_mve, _dsp, _armv7m, _armv6m, _rvv, _rv32)


def kernels(operator: str, template: str) -> tuple[Kernel, ...]:
    """Return the kernels of an operator: packed ones, each family's, then the portable template."""
    packed = (k for family in _FAMILIES for k in getattr(family, f"{operator}_PACKED", ()))
    special = (k for family in _FAMILIES for k in getattr(family, operator))
    return (*packed, *PACKED.get(operator, ()), *special, *portable(template))
