"""Join the kernel families of all instruction sets, per operator, portable C last.

Kernels that keep sub-byte weights packed come first: they accept such weights only, and none where
speed is all that counts. A family has them as <OPERATOR>_PACKED; portable C serves the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tinydeploy.ir import DType
from tinydeploy.ops import _armv6m, _armv7m, _dsp, _mve, _rv32, _rvv
from tinydeploy.ops._codebook import PACKED
from tinydeploy.ops.base import Kernel, Site

_FAMILIES = (_mve, _dsp, _armv7m, _armv6m, _rvv, _rv32)


def on_int8(site: Site) -> bool:
    """Accept int8 activations, which is what the kernels of the families are written for."""
    return site.call.input().dtype is site.call.output.dtype is DType.INT8


def kernels(operator: str, last: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Return the kernels of an operator: packed ones, each family's, then the portable `last`.

    Only the last ones ever see int16 activations.
    """
    packed = (k for family in _FAMILIES for k in getattr(family, f"{operator}_PACKED", ()))
    special = (k for family in _FAMILIES for k in getattr(family, operator))
    return (*map(_for_int8, (*packed, *PACKED.get(operator, ()), *special)), *last)


def _for_int8(kernel: Kernel) -> Kernel:
    accepts: Callable[[Site], bool] = kernel.accepts
    return replace(kernel, accepts=lambda site: on_int8(site) and accepts(site))
