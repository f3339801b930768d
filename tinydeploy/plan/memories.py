"""Turn a plan that is too large for one memory into one over several, cheapest to access.

Every buffer goes to one memory, and all rows of a tensor that is streamed. The cost of a
buffer is its traffic, the bytes that one inference reads and writes of it, times what an access
costs more than in the fastest memory.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.plan.arena import Rivals, check_no_overlap, lowest, rivals_of
from tinydeploy.plan.exact import assign_exact, solver_installed
from tinydeploy.plan.layout import ALIGNMENT, Arena, Item, MemoryPlan
from tinydeploy.plan.search import Choice, Wanted

_WORD = 4  # bytes of the access that a cost is of
_RESTARTS = 300
_SOLVER_SECONDS = 4.0
_PIECES = 250  # of all items, up to which the solver is asked unless it must be


@dataclass(frozen=True, slots=True)
class Room:
    """Offer bytes of a memory for arenas; `cost` as in targets.Memory, cycles per access."""

    memory: str
    bytes: int
    cost: float


def in_memories(
    chosen: Choice,
    front: Sequence[Choice],
    rooms: Sequence[Room],
    profile: IntegerProfile,
    wanted: Wanted,
    allocator: str,
) -> tuple[Choice, tuple[Choice, ...]]:
    """Return the plan to use where the arena may lie in several memories, the home one first, and
    the front with it.

    A plan that fits there stays as it is. Else it is of all plans on the front (without a budget
    or a schedule that asks for one of them) the one with the least instructions and waiting
    together. When none fits, the plan stays as it is, and does not fit.
    """
    if len(rooms) < 2 or chosen.plan.arena_bytes <= rooms[0].bytes:
        return chosen, tuple(front)
    free = wanted.schedule == "auto" and wanted.ram is None
    found: list[tuple[float, Choice, Choice]] = []
    for choice in front if free else (chosen,):
        placed = spread(choice.graph, profile, choice.plan, rooms, "greedy")
        if placed is None and allocator != "greedy" and solver_installed():
            placed = spread(choice.graph, profile, choice.plan, rooms, allocator)
        if placed is not None:
            waiting = waiting_cycles(choice.graph, profile, placed, rooms)
            found.append((choice.instructions + waiting, choice, replace(choice, plan=placed)))
    if not found:
        return chosen, tuple(front)
    _, original, best = min(found, key=lambda f: f[0])
    if best.plan.several and allocator != "greedy":
        plan = spread(best.graph, profile, original.plan, rooms, allocator)
        assert plan is not None
        best = replace(best, plan=plan)
    return best, tuple(best if c is original else c for c in front)


def divided(plan: MemoryPlan, arenas: Sequence[Arena]) -> MemoryPlan:
    """Return the plan with its offsets read as of arenas; ValueError if they cannot be."""
    ends = list(itertools.accumulate(a.bytes for a in arenas))
    if not arenas:
        return plan
    if ends[-1] != plan.arena_bytes or min(a.bytes for a in arenas) < 1:
        raise ValueError(f"arenas of {ends[-1]} bytes for {plan.arena_bytes}")
    for item, at in zip(plan.items.items, plan.offsets, strict=True):
        if any(at < end < at + item.bytes for end in ends):
            raise ValueError(f"'{item.label[:60]}' lies in two arenas")
    return replace(plan, several=tuple(arenas))


def spread(
    graph: Graph,
    profile: IntegerProfile,
    plan: MemoryPlan,
    rooms: Sequence[Room],
    allocator: str = "auto",
) -> MemoryPlan | None:
    """Return a plan with its buffers in the memories where accesses cost least; None: no room.

    allocator: "greedy", "exact" (needs the extra `solver`), or "auto": exact where the solver is
    installed. The home memory, the first, is preferred where costs are equal.
    """
    if plan.arena_bytes <= rooms[0].bytes and rooms[0].cost <= min(r.cost for r in rooms):
        return plan
    ordered = sorted(rooms, key=lambda r: r.cost)
    moved = traffic(graph, profile, plan)
    costs = [[round(t / _WORD * r.cost) for r in ordered] for t in moved]
    sizes = [r.bytes // ALIGNMENT * ALIGNMENT for r in ordered]
    units = _units(plan)
    found = _greedy(plan, units, sizes, costs, moved)
    used = "greedy"
    few = sum(len(i.pieces) for i in plan.items.items) <= _PIECES
    if allocator == "exact" or (allocator == "auto" and few and solver_installed()):
        better = assign_exact(plan.items.items, sizes, costs, units, found, _SOLVER_SECONDS)
        found, used = better or found, "exact" if better else used
    return None if found is None else _behind_each_other(plan, ordered, found, used)


def _behind_each_other(
    plan: MemoryPlan, rooms: Sequence[Room], found: Sequence[tuple[int, int]], used: str
) -> MemoryPlan:
    """Return the plan with (memory, offset) per item as arenas, each as small as it can be."""
    arenas, starts = [], {}
    total = 0
    for k, room in enumerate(rooms):
        ends = [at + i.bytes for i, (m, at) in zip(plan.items.items, found, strict=True) if m == k]
        if ends:
            starts[k] = total
            arenas.append(Arena(room.memory, max(ends)))
            total += max(ends)
    offsets = tuple(starts[k] + at for k, at in found)
    check_no_overlap(plan.items.items, offsets)

    return replace(
        plan,
        offsets=offsets,
        arena_bytes=total,
        allocator=used,
        several=tuple(arenas),
    )


def _units(plan: MemoryPlan) -> list[int]:
    """Return per item what lies in one memory: a buffer, or all rows of a tensor."""
    count = len(plan.buffers)
    unit = list(range(count)) + [-1] * (len(plan.items.items) - count)
    for tensor in plan.items.rows:
        own = [k for k, _ in plan.items.rows[tensor] if k >= count]
        known = {unit[k] for k in own} - {-1}
        to = min(known) if known else max(unit, default=-1) + 1
        for k in {*own, *(j for j, u in enumerate(unit) if u in known)}:
            unit[k] = to
    numbers = {u: n for n, u in enumerate(dict.fromkeys(unit))}
    return [numbers[u] for u in unit]


def traffic(graph: Graph, profile: IntegerProfile, plan: MemoryPlan) -> list[int]:
    """Return the bytes that one inference reads and writes, per buffer and then per tensor of which
    only rows are there (_units).

    A kernel reads the rows that each of its calls takes and writes its output; its scratch memory,
    rows of padding and sums are written and read in each call. Inputs are written and outputs read
    by the caller. Multiply-accumulates do not matter: what a kernel takes from memory more than
    once for them is in its registers or its scratch memory.
    """
    units = _units(plan)
    index = {t: k for k, b in enumerate(plan.buffers) for t in b.tensors}
    index |= {t: units[rows[0][0]] for t, rows in plan.items.rows.items()}
    moved = [0] * (max(units, default=-1) + 1)

    def touch(tensor: int, count: int) -> None:
        if tensor in index:  # else it lies in memory of the caller's
            moved[index[tensor]] += count

    for t in (*graph.inputs, *graph.outputs):
        touch(t, graph.tensors[t].bytes)
    for position, kernel in enumerate(plan.selection.kernels):
        if kernel is None:
            continue
        site = plan.selection.site(graph, position, profile)
        call, op = site.call, op_named(graph.nodes[position].op)
        region = None if kernel.whole(site) else op.region(call)
        rows = op.rows(call) if region is not None else 1
        if kernel.accumulators is not None:
            region, rows = None, call.input().rows
        calls = -(-rows // kernel.band)
        touch(call.node.outputs[0], call.output.bytes)
        for slot in op.inputs(call):
            tensor = call.node.inputs[slot]
            if tensor is None or graph.tensors[tensor].constant:
                continue
            taken = _rows_taken(call, slot, rows, kernel.band) if region is not None else None
            row = graph.tensors[tensor].row_bytes
            touch(tensor, graph.tensors[tensor].bytes if taken is None else taken * row)
        selection = plan.selection
        for places, size in (
            (plan.scratch, selection.scratch(graph, position, profile)),
            (plan.pad_rows, selection.pad_row_bytes(graph, position)),
            (plan.accumulators, selection.accumulators(graph, position, profile)),
        ):
            if position in places:
                moved[places[position]] += 2 * size * calls
    return moved


def waiting_cycles(
    graph: Graph, profile: IntegerProfile, plan: MemoryPlan, rooms: Sequence[Room]
) -> float:
    """Return the cycles that one inference waits for memories, beside those of the fastest."""
    cost = {r.memory: r.cost for r in rooms} | {"": rooms[0].cost}
    places = dict(zip(_units(plan), plan.offsets, strict=True))
    moved = traffic(graph, profile, plan)
    return sum(moved[u] / _WORD * cost[plan.within(at)[0]] for u, at in places.items())


def _rows_taken(call: Call, slot: int, rows: int, band: int) -> int:
    """Return how many rows of an input all calls of a kernel take together."""
    height = call.input(slot).rows
    taken = 0
    for source in op_named(call.node.op).region(call) or ():
        if source.input == slot:
            for y in range(0, rows, band):
                own = range(y, min(y + band, rows))
                taken += len({r for k in own for r in source.rows(k) if 0 <= r < height})
    return taken


def _greedy(
    plan: MemoryPlan,
    units: Sequence[int],
    sizes: Sequence[int],
    costs: Sequence[Sequence[int]],
    moved: Sequence[int],
) -> list[tuple[int, int]] | None:
    """Return (memory, offset) per item; None where no order was found in which all fit.

    In turn each unit goes to the cheapest memory that has room, as low as it can: several orders
    and shuffles of the best, the same ones always.
    """
    items, count = plan.items.items, len(costs)
    rivals = rivals_of(items)
    parts: list[list[int]] = [[] for _ in costs]
    for k, u in enumerate(units):
        parts[u].append(k)
    weight = [max(sum(items[k].bytes for k in p), 1) for p in parts]
    alive = plan.items.alive
    busiest = [
        max(int(alive[max(piece[2], 0) : piece[3] + 1].max(initial=0)) for k in p
            for piece in items[k].pieces.tolist())
        for p in parts
    ]  # fmt: skip
    choices = [sorted(range(len(sizes)), key=c.__getitem__) for c in costs]

    def judge(order: Sequence[int]) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        found = _first_fit(items, parts, order, rivals, sizes, choices)
        lost = sum(i.bytes for i, (m, _) in zip(items, found, strict=True) if m < 0)
        price = sum(
            c[found[p[0]][0]] for c, p in zip(costs, parts, strict=True) if found[p[0]][0] >= 0
        )
        tops = dict.fromkeys(range(-1, len(sizes)), 0)
        for item, (m, at) in zip(items, found, strict=True):
            tops[m] = max(tops[m], at + item.bytes)
        return (lost, price, sum(tops.values())), found

    orders = [
        sorted(range(count), key=key)
        for key in (
            lambda u: (-moved[u] / weight[u], u),
            lambda u: (-weight[u], u),
            lambda u: (-busiest[u], -weight[u], u),
            lambda u: (-moved[u], u),
            lambda u: (weight[u], u),
            lambda u: (plan.offsets[parts[u][0]], u),
        )
    ]
    best, order = min(((judge(o), o) for o in orders), key=lambda f: f[0][0])
    generator = random.Random(0)
    for _ in range(_RESTARTS * 100 // max(len(items), 100) if count > 1 else 0):
        tried = list(order)
        for _ in range(generator.randint(1, 3)):
            tried.insert(generator.randrange(count), tried.pop(generator.randrange(count)))
        judged = judge(tried)
        if judged[0] <= best[0]:
            best, order = judged, tried
    (lost, _, _), found = best
    return None if lost else found


def _first_fit(
    items: Sequence[Item],
    parts: Sequence[Sequence[int]],
    order: Sequence[int],
    rivals: Sequence[Rivals],
    sizes: Sequence[int],
    choices: Sequence[Sequence[int]],
) -> list[tuple[int, int]]:
    """Return (memory, offset) per item; memory -1 where there was no room for all of its unit."""
    found = [(-1, 0)] * len(items)
    offsets = np.full((len(sizes), len(items)), -1, np.int64)
    for unit in order:
        for memory in choices[unit]:
            for k in parts[unit]:
                at = lowest(rivals[k], offsets[memory])
                if at + items[k].bytes > sizes[memory]:
                    offsets[memory, parts[unit]] = -1
                    break
                offsets[memory, k] = at
            else:
                for k in parts[unit]:
                    found[k] = (memory, int(offsets[memory, k]))
                break
    return found
