"""Turn items into offsets, with greedy heuristics and a bounded local search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinydeploy.plan.layout import ALIGNMENT, Item, Rows

EFFORT = 100_000
_TRIES = 400  # placements of all items at most
_REPAIRS = 25  # of an order, for each limit

Key = Callable[[int], tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """Say where an item may not begin: between `low` and `high` bytes from the start of another
    one, both excluded, one line each.
    """

    index: Rows
    low: Rows
    high: Rows


def rivals_of(items: Sequence[Item]) -> list[Rivals]:
    """Return, per item, what _rivals says, remembered for the last few plans."""
    return _rivals(tuple(items))


@lru_cache(maxsize=4)
def _rivals(items: tuple[Item, ...]) -> list[Rivals]:
    """Return, per item, which pieces of others are in use at the same time, and how they collide.

    One piece below another may end where that begins. Items begin at multiples of the alignment,
    so all is rounded to these.
    """
    if not items:
        return []
    pieces = np.concatenate([i.pieces for i in items])
    owner = np.repeat(np.arange(len(items)), [len(i.pieces) for i in items])
    start, end, first, last = pieces.T
    found = []
    for k, item in enumerate(items):
        index, low, high = [], [], []
        if len(item.pieces) > len(items):  # many short lives: find who lives at all first
            near = np.flatnonzero(
                (first <= item.pieces[:, 3].max()) & (last >= item.pieces[:, 2].min())
            )
        else:
            near = np.arange(len(pieces))
        for a, b, begins, ends in item.pieces.tolist():
            at = near[(first[near] <= ends) & (last[near] >= begins)]
            at = at[owner[at] != k]
            index.append(owner[at])
            low.append((start[at] - b) // ALIGNMENT * ALIGNMENT)
            high.append(-((a - end[at]) // ALIGNMENT) * ALIGNMENT)
        lines = np.stack([np.concatenate(index), np.concatenate(low), np.concatenate(high)], axis=1)
        lines = np.unique(lines, axis=0) if len(item.pieces) > 1 else lines
        found.append(Rivals(*lines.T))
    return found


def place_in_order(items: Sequence[Item], order: Sequence[int]) -> tuple[list[int], int]:
    """Put each item at the lowest offset that is free while it is in use; return (offsets, bytes).

    TensorFlow Lite Micro's GreedyMemoryPlanner with the order left to the caller, and with items
    whose pieces are in use at different times.
    """
    found, _ = _place(items, order, rivals_of(items), sum(i.bytes for i in items))
    offsets = [int(o) for o in found]
    return offsets, _end(items, offsets)


def _end(items: Sequence[Item], offsets: Iterable[int]) -> int:
    return max((int(at) + i.bytes for i, at in zip(items, offsets, strict=True)), default=0)


def lowest(rivals: Rivals, offsets: Rows) -> int:
    """Return the lowest offset free of an item's rivals; those at offsets below 0 lie nowhere."""
    at = offsets[rivals.index]
    placed = at >= 0
    at = at[placed]
    if not len(at):
        return 0
    low, high = at + rivals.low[placed], at + rivals.high[placed]
    order = low.argsort()
    low, free = low[order], np.maximum.accumulate(high[order])
    # Free up to the first, and from the highest end so far up to the next.
    if low[0] >= 0 or free[-1] <= 0:
        return 0
    gaps = ((free[:-1] <= low[1:]) & (low[1:] >= 0)).nonzero()[0]
    return max(int(free[gaps[0]] if len(gaps) else free[-1]), 0)


def highest(rivals: Rivals, offsets: Rows, most: int) -> int:
    """Return the highest offset, at most `most`, free of an item's rivals; below 0 if none is."""
    at = offsets[rivals.index]
    placed = at >= 0
    at = at[placed]
    most -= most % ALIGNMENT
    if not len(at):
        return most
    low, high = at + rivals.low[placed], at + rivals.high[placed]
    order = np.argsort(-high)
    free = np.minimum(np.concatenate([[most], np.minimum.accumulate(low[order])]), most)
    gaps = np.flatnonzero(free[:-1] >= high[order])
    return int(free[gaps[0]] if len(gaps) else free[-1])


def _place(
    items: Sequence[Item],
    order: Sequence[int],
    rivals: Sequence[Rivals],
    limit: int,
    top: Set[int] = frozenset(),
    offsets: Rows | None = None,
) -> tuple[Rows, int]:
    """Put each item at the lowest offset free, those in `top` at the highest below `limit`.

    Returns the offsets and -1, or the item for which more than `limit` bytes would be needed.
    Those with `offsets` already stay there.
    """
    if offsets is None:
        offsets = np.full(len(items), -1, np.int64)
    for index in order:
        if offsets[index] >= 0:
            continue
        most = limit - items[index].bytes
        at = highest(rivals[index], offsets, most) if index in top else -1
        if at < 0:
            at = lowest(rivals[index], offsets)
        if at > most:
            return offsets, index
        offsets[index] = at
    return offsets, -1


def bound_of(items: Sequence[Item]) -> int:
    """Return the largest number of bytes in use at one call: no arena can be smaller."""
    if not items:
        return 0
    start, end, first, last = np.concatenate([i.pieces for i in items]).T
    base = first.min()
    alive = np.bincount(first - base, end - start, minlength=int(last.max() - base) + 2)
    alive -= np.bincount(last - base + 1, end - start, minlength=len(alive))
    return int(np.cumsum(alive).max())


def allocate_greedy(
    items: Sequence[Item], bound: int | None = None, effort: int = EFFORT
) -> tuple[list[int], int]:
    """Return (offsets in bytes, arena bytes): the best of several orders, mended where they fail.

    For each order the limit is halved towards the bound; what does not fit within comes earlier the
    next time. What dies piece by piece while something else is born that way has room for it
    below, so in some orders every other large item is put as high as it can be. Deterministic; at
    most about `effort` items are placed in all, none once the bound is reached.
    """
    if not items:
        return [], 0
    bound = bound_of(items) if bound is None else bound
    first = [int(i.pieces[:, 2].min()) for i in items]
    last = [int(i.pieces[:, 3].max()) for i in items]
    size = [i.bytes for i in items]
    alike, one = _alike(size), [len(i.pieces) == 1 for i in items]
    rows = [k for k, i in enumerate(items) if len({*i.pieces[:, 0].tolist()}) > 1]
    rows.sort(key=lambda k: (first[k], last[k]))
    none, odd = frozenset[int](), frozenset(rows[1::2])
    by_size: Key = lambda k: (one[k], -alike[k], first[k])  # noqa: E731
    by_end: Key = lambda k: (one[k], -last[k], -size[k])  # noqa: E731
    by_life: Key = lambda k: (first[k] - last[k], -size[k])  # noqa: E731
    by_area: Key = lambda k: (-size[k] * (last[k] - first[k] + 1), first[k])  # noqa: E731
    states = [
        (by_size, odd), (by_end, none), (by_life, none), (by_area, odd), (by_size, none),
        (by_life, odd), (by_area, none), (by_end, odd), (lambda k: (first[k], -size[k]), none),
    ]  # fmt: skip
    rivals = rivals_of(items)
    best: list[int] = []
    total = sum(size)
    tries = min(effort // len(items), _TRIES)
    for key, _ in states[: 3 + tries // 20]:
        offsets, lost = _place(items, sorted(range(len(items)), key=key), rivals, total)
        if lost < 0:
            best, total = offsets.tolist(), _end(items, offsets)
    for key, top in states:
        low = bound
        while low < total and tries > 0:
            limit = max(low, (low + total - ALIGNMENT) // 2 // ALIGNMENT * ALIGNMENT)
            order = sorted(range(len(items)), key=key)
            found, used = _mended(items, order, rivals, limit, top, min(_REPAIRS, tries))
            tries -= used
            if found is None:
                low = limit + max(ALIGNMENT, (total - limit) // 4 // ALIGNMENT * ALIGNMENT)
            else:
                best, total = found, _end(items, found)
    return best, total


def _mended(
    items: Sequence[Item],
    order: list[int],
    rivals: Sequence[Rivals],
    limit: int,
    top: Set[int],
    tries: int,
) -> tuple[list[int] | None, int]:
    """Try to place all items within a limit, and those that do not fit earlier the next time.

    Returns the offsets, None without success, and how many tries were needed.
    """
    offsets = None
    for used in range(1, tries + 1):
        offsets, lost = _place(items, order, rivals, limit, top, offsets)
        if lost < 0:
            return offsets.tolist(), used
        at = order.index(lost)
        offsets[order[at // 2 : at]] = -1
        order.insert(at // 2, order.pop(at))
    return None, tries


def _alike(sizes: Sequence[int]) -> list[int]:
    """Return sizes with those that differ by less than a sixteenth as one."""
    found: dict[int, int] = {}
    largest = 0
    for size in sorted({*sizes}, reverse=True):
        if size * 16 < largest * 15:
            largest = size
        largest = largest or size
        found[size] = largest
    return [found[s] for s in sizes]


def check_no_overlap(items: Sequence[Item], offsets: Sequence[int]) -> None:
    """Raise ValueError if pieces of two items that are in use at the same time share a byte."""
    at = np.array(offsets, np.int64)
    for k, rivals in enumerate(rivals_of(items)):
        apart = at[k] - at[rivals.index]
        hit = np.flatnonzero((apart > rivals.low) & (apart < rivals.high))
        if len(hit):
            other = items[int(rivals.index[hit[0]])].label
            raise ValueError(f"'{items[k].label}' and '{other}' overlap")
