"""Collect the operators: every module of this package that defines OP registers it."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from tinydeploy.ops.base import Call, Kernel, Op, RowSource, Site
from tinydeploy.ops.layout import PLAIN, Layout

__all__ = [
    "PLAIN",
    "Call",
    "Kernel",
    "Layout",
    "Op",
    "RowSource",
    "Site",
    "op_named",
    "registry",
]


@cache
def registry() -> dict[str, Op]:
    """Return all operators by name, in alphabetical order."""
    found: dict[str, Op] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if info.name in ("base", "checks", "execute", "layout") or info.name.startswith("_"):
            continue
        op: Op = importlib.import_module(f"{__name__}.{info.name}").OP
        found[op.name] = op
    return found


def op_named(name: str) -> Op:
    return registry()[name]
