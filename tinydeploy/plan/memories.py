"""Turn a plan that is too large for one memory into one over several, cheapest to access.

Every buffer goes to one memory; those that share bytes may do so only in the same. The cost of a
buffer is its traffic, the bytes that one inference reads and writes of it, times what an access
costs more than in the fastest memory.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.plan.arena import Rival, check_no_overlap, rivals_of
from tinydeploy.plan.exact import assign_exact, solver_installed
from tinydeploy.plan.layout import ALIGNMENT, Arena, Buffer, MemoryPlan
from tinydeploy.plan.search import Choice, Wanted

_WORD = 4  # bytes of the access that a cost is of
_RESTARTS = 300
_SOLVER_SECONDS = 4.0


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
    for b, at in zip(plan.buffers, plan.offsets, strict=True):
        if any(at < end < at + b.bytes for end in ends):
            raise ValueError(f"buffer '{b.label[:60]}' lies in two arenas")
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
    found = _greedy(plan, sizes, costs, moved)
    used = "greedy"
    if allocator == "exact" or (allocator == "auto" and solver_installed()):
        better = assign_exact(plan.buffers, sizes, costs, plan.pairs, found, _SOLVER_SECONDS)
        found, used = better or found, "exact" if better else used
    return None if found is None else _behind_each_other(plan, ordered, found, used)


def _behind_each_other(
    plan: MemoryPlan, rooms: Sequence[Room], found: Sequence[tuple[int, int]], used: str
) -> MemoryPlan:
    """Return the plan with (memory, offset) per buffer as arenas, each as small as it can be."""
    arenas, starts = [], {}
    total = 0
    for k, room in enumerate(rooms):
        ends = [at + b.bytes for b, (m, at) in zip(plan.buffers, found, strict=True) if m == k]
        if ends:
            starts[k] = total
            arenas.append(Arena(room.memory, max(ends)))
            total += max(ends)
    offsets = tuple(starts[k] + at for k, at in found)
    check_no_overlap(plan.buffers, offsets, plan.pairs)

    def moved(places: Mapping[int, int]) -> dict[int, int]:
        return {p: offsets[_private(plan, p, at)] for p, at in places.items()}

    return replace(
        plan,
        offsets=offsets,
        scratch=moved(plan.scratch),
        pad_rows=moved(plan.pad_rows),
        accumulators=moved(plan.accumulators),
        arena_bytes=total,
        allocator=used,
        several=tuple(arenas),
    )


def traffic(graph: Graph, profile: IntegerProfile, plan: MemoryPlan) -> list[int]:
    """Return the bytes that one inference reads and writes, per buffer.

    A kernel reads the rows that each of its calls takes and writes its output; its scratch memory,
    rows of padding and sums are written and read in each call. Inputs are written and outputs read
    by the caller. Multiply-accumulates do not matter: what a kernel takes from memory more than
    once for them is in its registers or its scratch memory.
    """
    index = {t: k for k, b in enumerate(plan.buffers) for t in b.tensors}
    moved = [0] * len(plan.buffers)

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
                moved[_private(plan, position, places[position])] += 2 * size * calls
    return moved


def waiting_cycles(
    graph: Graph, profile: IntegerProfile, plan: MemoryPlan, rooms: Sequence[Room]
) -> float:
    """Return the cycles that one inference waits for memories, beside those of the fastest."""
    cost = {r.memory: r.cost for r in rooms} | {"": rooms[0].cost}
    waiting = 0.0
    for moved, at in zip(traffic(graph, profile, plan), plan.offsets, strict=True):
        waiting += moved / _WORD * cost[plan.within(at)[0]]
    return waiting


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


def _private(plan: MemoryPlan, position: int, at: int) -> int:
    """Return the buffer that a node has for itself at an offset."""
    return next(
        k
        for k, (b, start) in enumerate(zip(plan.buffers, plan.offsets, strict=True))
        if not b.tensors and start == at and b.first <= position <= b.last
    )


def _greedy(
    plan: MemoryPlan, sizes: Sequence[int], costs: Sequence[Sequence[int]], moved: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Return (memory, offset) per buffer; None where no order was found in which all fit.

    In turn each buffer goes to the cheapest memory that has room, as low as it can: several orders
    and shuffles of the best, the same ones always.
    """
    buffers, count = plan.buffers, len(plan.buffers)
    rivals = rivals_of(buffers, plan.pairs)
    alive = [plan.occupied(step) for step in range(-1, plan.steps + 1)]
    busiest = [max(alive[b.first + 1 : b.last + 2]) for b in buffers]
    choices = [sorted(range(len(sizes)), key=lambda m, c=c: c[m]) for c in costs]  # type: ignore[misc]

    def judge(order: Sequence[int]) -> tuple[tuple[int, int, int], list[tuple[int, int]]]:
        found = _first_fit(buffers, order, rivals, sizes, choices)
        lost = sum(b.bytes for b, (m, _) in zip(buffers, found, strict=True) if m < 0)
        price = sum(c[m] for c, (m, _) in zip(costs, found, strict=True) if m >= 0)
        tops = dict.fromkeys(range(-1, len(sizes)), 0)
        for b, (m, at) in zip(buffers, found, strict=True):
            tops[m] = max(tops[m], at + b.bytes)
        return (lost, price, sum(tops.values())), found

    orders = [
        sorted(range(count), key=key)
        for key in (
            lambda k: (-moved[k] / max(buffers[k].bytes, 1), k),
            lambda k: (-buffers[k].bytes, k),
            lambda k: (-busiest[k], -buffers[k].bytes, k),
            lambda k: (-moved[k], k),
            lambda k: (buffers[k].bytes, k),
            lambda k: (plan.offsets[k], k),
        )
    ]
    best, order = min(((judge(o), o) for o in orders), key=lambda f: f[0][0])
    generator = random.Random(0)
    for _ in range(_RESTARTS if count > 1 else 0):
        tried = list(order)
        for _ in range(generator.randint(1, 3)):
            tried.insert(generator.randrange(count), tried.pop(generator.randrange(count)))
        judged = judge(tried)
        if judged[0] <= best[0]:
            best, order = judged, tried
    (lost, _, _), found = best
    return None if lost else found


def _first_fit(
    buffers: Sequence[Buffer],
    order: Sequence[int],
    rivals: Sequence[Sequence[Rival]],
    sizes: Sequence[int],
    choices: Sequence[Sequence[int]],
) -> list[tuple[int, int]]:
    """Return (memory, offset) per buffer; memory -1 where there was no room."""
    found = [(-1, 0)] * len(buffers)
    for index in order:
        for memory in choices[index]:
            taken = sorted(
                (found[r.index][1] - r.below, found[r.index][1] + r.above)
                for r in rivals[index]
                if found[r.index][0] == memory
            )
            at = 0
            for low, high in taken:
                if at <= low:
                    break
                at = max(at, high)
            if at + buffers[index].bytes <= sizes[memory]:
                found[index] = (memory, at)
                break
    return found
