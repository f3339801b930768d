"""Join the kernel families of all instruction sets, per operator, portable C last."""

from __future__ import annotations

from tinydeploy.ops import _armv6m, _armv7m, _dsp, _mve, _rv32, _rvv
from tinydeploy.ops.base import Kernel, portable

_FAMILIES = (_mve, _dsp, _armv7m, _armv6m, _rvv, _rv32)


def kernels(operator: str, template: str) -> tuple[Kernel, ...]:
    """Return the kernels of an operator: each family's, then the portable template."""
    special = (k for family in _FAMILIES for k in getattr(family, operator))
    return (*special, *portable(template))
