"""Turn buffers with lifetimes into offsets of provably least arena size, with CP-SAT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import combinations
from types import MappingProxyType
from typing import Any

from tinydeploy.errors import UsageError
from tinydeploy.plan.arena import Pairs
from tinydeploy.plan.layout import ALIGNMENT, Buffer
from tinydeploy.plan.liveness import lower_bound


def solver_installed() -> bool:
    """Tell whether the extra `solver` is there, without importing it."""
    return find_spec("ortools") is not None


def _cp_model() -> Any:
    """Return the solver's module.

    Measured with ortools 9.15 and TensorFlow 2.21: solving crashes the process where TensorFlow
    was loaded first, and both work the other way round.
    """
    if "tensorflow" in sys.modules and "ortools.sat.python.cp_model" not in sys.modules:
        raise UsageError(
            "the exact allocator cannot run in a process that has loaded TensorFlow",
            "ortools would crash",
            "import ortools.sat.python.cp_model first, or run tinydeploy as a command",
        )
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise UsageError(
            "the exact allocator needs ortools", "", "pip install 'tinydeploy[solver]'"
        ) from None
    return cp_model


def allocate_exact(
    buffers: Sequence[Buffer],
    hint: Sequence[int],
    arena_bytes: int,
    seconds: float = 10.0,
    pairs: Pairs = MappingProxyType({}),
    least: int | None = None,
) -> tuple[list[int], int, int]:
    """Return (offsets, arena bytes, proven lower bound), never worse than the hint.

    Each buffer is a rectangle, lifetime by bytes; rectangles must not overlap (NoOverlap2D) and
    the tallest is minimised. Buffers that may overlap are kept apart pair by pair instead: one
    above the other, or the upper one at its distance. `least` is a bound known beforehand.
    Raises UsageError without the extra `solver`.
    """
    cp_model = _cp_model()
    model = cp_model.CpModel()
    top = arena_bytes // ALIGNMENT
    known = lower_bound(tuple(buffers)) if least is None else least
    bound = known // ALIGNMENT
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
    if pairs:
        for j, i in combinations(range(len(buffers)), 2):
            if buffers[i].first <= buffers[j].last and buffers[j].first <= buffers[i].last:
                _keep_apart(model, buffers, pairs, starts, i, j)
    else:
        model.add_no_overlap_2d(lives, spans)
    model.minimize(height)
    solver = _solver(cp_model, seconds)
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(hint), arena_bytes, bound * ALIGNMENT
    offsets = [int(solver.value(s)) * ALIGNMENT for s in starts]
    proven = int(solver.best_objective_bound) * ALIGNMENT
    return offsets, int(solver.objective_value) * ALIGNMENT, proven


def assign_exact(
    buffers: Sequence[Buffer],
    sizes: Sequence[int],
    costs: Sequence[Sequence[int]],
    pairs: Pairs,
    hint: Sequence[tuple[int, int]] | None,
    seconds: float,
) -> list[tuple[int, int]] | None:
    """Return (memory, offset) per buffer at least cost, then in fewest bytes; None: none found.

    sizes: bytes of each memory; costs: of each buffer in each memory. The memories lie one behind
    the other here, so that buffers of different ones cannot meet. `hint` is an answer to begin
    with. Raises UsageError without the extra `solver`.
    """
    cp_model = _cp_model()
    model = cp_model.CpModel()
    most = sum(b.bytes for b in buffers)  # more is of no use
    limits = [min(size, most) // ALIGNMENT for size in sizes]
    bases = [sum(limits[:m]) for m in range(len(limits))]
    heights = [model.new_int_var(0, limit, f"height{m}") for m, limit in enumerate(limits)]
    starts, lives, spans, inside = [], [], [], []
    for k, b in enumerate(buffers):
        size = b.bytes // ALIGNMENT
        start = model.new_int_var(0, max(sum(limits) - size, 0), f"offset{k}")
        here = [model.new_bool_var(f"buffer{k}in{m}") for m in range(len(limits))]
        model.add_exactly_one(here)
        for m, chosen in enumerate(here):
            model.add(start >= bases[m]).only_enforce_if(chosen)
            model.add(start + size <= bases[m] + heights[m]).only_enforce_if(chosen)
            if hint:
                model.add_hint(chosen, hint[k][0] == m)
        if hint:
            model.add_hint(start, bases[hint[k][0]] + hint[k][1] // ALIGNMENT)
        starts.append(start)
        inside.append(here)
        spans.append(model.new_fixed_size_interval_var(start, size, f"bytes{k}"))
        lives.append(model.new_fixed_size_interval_var(b.first, b.last - b.first + 1, f"life{k}"))
    if pairs:
        for j, i in combinations(range(len(buffers)), 2):
            if buffers[i].first <= buffers[j].last and buffers[j].first <= buffers[i].last:
                _keep_apart(model, buffers, pairs, starts, i, j)
    else:
        model.add_no_overlap_2d(lives, spans)
    price = sum(c * x for c_k, x_k in zip(costs, inside, strict=True)
                for c, x in zip(c_k, x_k, strict=True))  # fmt: skip
    model.minimize(price * (sum(limits) + 1) + sum(heights))
    solver = _solver(cp_model, seconds)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    found = []
    for k in range(len(buffers)):
        m = next(m for m, x in enumerate(inside[k]) if solver.value(x))
        found.append((m, (int(solver.value(starts[k])) - bases[m]) * ALIGNMENT))
    return found


def _solver(cp_model: Any, seconds: float) -> Any:
    """Return a solver that gives the same answer on every machine: one worker, stopped by work done
    and not by the clock.
    """
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = seconds
    solver.parameters.max_time_in_seconds = 20 * seconds
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    return solver


def _keep_apart(
    model: Any, buffers: Sequence[Buffer], pairs: Pairs, starts: Sequence[Any], a: int, b: int
) -> None:
    """Let one of the ways hold in which two buffers of one time get along."""
    ways = [
        (starts[a], buffers[a].bytes, starts[b]),
        (starts[b], buffers[b].bytes, starts[a]),
        *((starts[x], pairs[x, y], starts[y]) for x, y in ((a, b), (b, a)) if (x, y) in pairs),
    ]
    chosen = []
    for lower, distance, upper in ways:
        way = model.new_bool_var("")
        model.add(lower + distance // ALIGNMENT <= upper).only_enforce_if(way)
        chosen.append(way)
    model.add_bool_or(chosen)
