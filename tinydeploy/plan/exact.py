"""Turn buffers with lifetimes into offsets of provably least arena size, with CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tinydeploy.errors import UsageError
from tinydeploy.plan.layout import ALIGNMENT, Buffer
from tinydeploy.plan.liveness import lower_bound


def solver_installed() -> bool:
    """Tell whether the extra `solver` is there, without importing it."""
    return find_spec("ortools") is not None


def allocate_exact(
    buffers: Sequence[Buffer], hint: Sequence[int], arena_bytes: int, seconds: float = 10.0
) -> tuple[list[int], int, int]:
    """Return (offsets, arena bytes, proven lower bound), never worse than the hint.

    Each buffer is a rectangle, lifetime by bytes; rectangles must not overlap (NoOverlap2D) and
    the tallest is minimised. Raises UsageError without the extra `solver`.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise UsageError(
            "the exact allocator needs ortools", "", "pip install 'tinydeploy[solver]'"
        ) from None
    model = cp_model.CpModel()
    top = arena_bytes // ALIGNMENT
    bound = lower_bound(tuple(buffers)) // ALIGNMENT
    height = model.new_int_var(bound, top, "arena")
    starts, lives, spans = [], [], []
    for k, b in enumerate(buffers):
        size = b.bytes // ALIGNMENT
        start = model.new_int_var(0, max(top - size, 0), f"offset{k}")
        model.add(start + size <= height)
        model.add_hint(start, hint[k] // ALIGNMENT)
        starts.append(start)
        spans.append(model.new_fixed_size_interval_var(start, size, f"bytes{k}"))
        lives.append(model.new_fixed_size_interval_var(b.first, b.last - b.first + 1, f"life{k}"))
    model.add_no_overlap_2d(lives, spans)
    model.minimize(height)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    solver.parameters.random_seed = 0
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(hint), arena_bytes, bound * ALIGNMENT
    offsets = [int(solver.value(s)) * ALIGNMENT for s in starts]
    proven = int(solver.best_objective_bound) * ALIGNMENT
    return offsets, int(solver.objective_value) * ALIGNMENT, proven
