"""Turn items with lifetimes into offsets of provably least arena size, with CP-SAT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from tinydeploy.errors import UsageError
from tinydeploy.plan.arena import bound_of
from tinydeploy.plan.layout import ALIGNMENT, Item


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
    items: Sequence[Item],
    hint: Sequence[int],
    arena_bytes: int,
    seconds: float = 10.0,
    least: int | None = None,
) -> tuple[list[int], int, int]:
    """Return (offsets, arena bytes, proven lower bound), never worse than the hint.

    Each piece of an item is a rectangle, lifetime by bytes; rectangles must not overlap
    (NoOverlap2D) and the tallest is minimised. `least` is a bound known beforehand.
    Raises UsageError without the extra `solver`.
    """
    cp_model = _cp_model()
    model = cp_model.CpModel()
    top = arena_bytes // ALIGNMENT
    bound = (bound_of(items) if least is None else least) // ALIGNMENT
    height = model.new_int_var(bound, top, "arena")
    starts = []
    rectangles: tuple[list[Any], list[Any]] = [], []
    for k, item in enumerate(items):
        start = model.new_int_var(0, max(top - item.bytes // ALIGNMENT, 0), f"offset{k}")
        model.add(start + item.bytes // ALIGNMENT <= height)
        model.add_hint(start, hint[k] // ALIGNMENT)
        starts.append(start)
        _add_rectangles(model, item, start, rectangles)
    model.add_no_overlap_2d(*rectangles)
    model.minimize(height)
    solver = _solver(cp_model, seconds)
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return list(hint), arena_bytes, bound * ALIGNMENT
    offsets = [int(solver.value(s)) * ALIGNMENT for s in starts]
    proven = int(solver.best_objective_bound) * ALIGNMENT
    return offsets, int(solver.objective_value) * ALIGNMENT, proven


def _add_rectangles(model: Any, item: Item, start: Any, found: tuple[list[Any], list[Any]]) -> None:
    """Add the pieces of an item that begins at a variable, in units of the alignment.

    Where rows are no multiple of that, a piece takes the whole of its first and last unit, and the
    pieces of one item are not kept from each other.
    """
    lives, spans = found
    whole = any(low % ALIGNMENT or high % ALIGNMENT for low, high in item.pieces[:, :2].tolist())
    pieces = item.pieces.tolist()
    if whole:
        first, last = item.pieces[:, 2].min(), item.pieces[:, 3].max()
        pieces = [[0, item.bytes, int(first), int(last)]]
    for low, high, first, last in pieces:
        size = (high - low) // ALIGNMENT
        lives.append(model.new_fixed_size_interval_var(first, last - first + 1, ""))
        spans.append(model.new_fixed_size_interval_var(start + low // ALIGNMENT, size, ""))


def assign_exact(
    items: Sequence[Item],
    sizes: Sequence[int],
    costs: Sequence[Sequence[int]],
    units: Sequence[int],
    hint: Sequence[tuple[int, int]] | None,
    seconds: float,
) -> list[tuple[int, int]] | None:
    """Return (memory, offset) per item at least cost, then in fewest bytes; None: none found.

    sizes: bytes of each memory; units: which items go to one memory together; costs: of each unit
    in each memory. The memories lie one behind the other here, so that items of different ones
    cannot meet. `hint` is an answer to begin with. Raises UsageError without the extra `solver`.
    """
    cp_model = _cp_model()
    model = cp_model.CpModel()
    most = sum(i.bytes for i in items)  # more is of no use
    limits = [min(size, most) // ALIGNMENT for size in sizes]
    bases = [sum(limits[:m]) for m in range(len(limits))]
    heights = [model.new_int_var(0, limit, f"height{m}") for m, limit in enumerate(limits)]
    inside = [
        [model.new_bool_var(f"unit{u}in{m}") for m in range(len(limits))]
        for u in range(max(units, default=-1) + 1)
    ]
    for here in inside:
        model.add_exactly_one(here)
    starts = []
    rectangles: tuple[list[Any], list[Any]] = [], []
    for k, item in enumerate(items):
        size, here = item.bytes // ALIGNMENT, inside[units[k]]
        start = model.new_int_var(0, max(sum(limits) - size, 0), f"offset{k}")
        for m, chosen in enumerate(here):
            model.add(start >= bases[m]).only_enforce_if(chosen)
            model.add(start + size <= bases[m] + heights[m]).only_enforce_if(chosen)
        if hint:
            model.add_hint(start, bases[hint[k][0]] + hint[k][1] // ALIGNMENT)
        starts.append(start)
        _add_rectangles(model, item, start, rectangles)
    where = {u: m for u, (m, _) in zip(units, hint or (), strict=False)}
    for u, memory in where.items():
        for m, chosen in enumerate(inside[u]):
            model.add_hint(chosen, memory == m)
    model.add_no_overlap_2d(*rectangles)
    price = sum(c * x for c_u, x_u in zip(costs, inside, strict=True)
                for c, x in zip(c_u, x_u, strict=True))  # fmt: skip
    model.minimize(price * (sum(limits) + 1) + sum(heights))
    solver = _solver(cp_model, seconds)
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    found = []
    for start, u in zip(starts, units, strict=True):
        m = next(m for m, x in enumerate(inside[u]) if solver.value(x))
        found.append((m, (int(solver.value(start)) - bases[m]) * ALIGNMENT))
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
