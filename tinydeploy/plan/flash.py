"""Turn a plan into bytes of flash: what its kernels read, and where and when its rows are."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Kernel, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.select import Around, Core, Selection, site_of

_PLACE = 2  # bytes of an entry in a table of rows


def plan_constants(graph: Graph, profile: IntegerProfile, plan: MemoryPlan) -> int:
    """Return the bytes of constants of a plan, code not counted.

    Those are the arrays of the kernels, one byte per call of a streamed segment, and a place per
    row that only such a segment knows; arrays that are equal by chance count twice.
    """
    executed = (p for p, kernel in enumerate(plan.selection.kernels) if kernel is not None)
    arrays = sum(node_constants(graph, profile, plan.selection, p) for p in executed)
    calls = sum(len(s.calls) for s in plan.segments)
    return arrays + calls + _PLACE * sum(len(rows) for rows in plan.items.rows.values())


def node_constants(
    graph: Graph, profile: IntegerProfile, selection: Selection, position: int
) -> int:
    """Return the bytes of the arrays that a node's kernel reads."""
    kernel = selection.kernels[position]
    assert kernel is not None
    around, pace = selection.around(graph, position), selection.pace(position)
    return _constants(kernel, graph, position, profile, selection.core, around, pace)


@lru_cache(maxsize=1 << 14)
def _constants(
    kernel: Kernel,
    graph: Graph,
    position: int,
    profile: IntegerProfile,
    core: Core,
    around: Around,
    pace: Pace,
) -> int:
    site = site_of(graph, position, profile, core, around, pace)
    own = kernel.params or (lambda s: op_named(s.call.node.op).params(s.call, profile))
    params = own(site)
    arrays = (getattr(params, f.name) for f in fields(params)) if params is not None else ()
    return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
