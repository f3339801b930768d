"""Turn items into offsets: greedily, then by a search that ejects what is in the way."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np

from tinydeploy.plan.arena import Rivals, bound_of, end_of, lowest, place_in_order, rivals_of
from tinydeploy.plan.layout import ALIGNMENT, Item, Rows

EFFORT = 20_000
_OWN, _EACH = 500, 1  # steps of an attempt, and per item
_FEW = 64  # rivals that are compared one by one with all places
_LEAST = 64  # the last attempts leave a part of the excess that is smaller by so much


def allocate_greedy(
    items: Sequence[Item], bound: int | None = None, effort: int = EFFORT
) -> tuple[list[int], int]:
    """Return (offsets in bytes, arena bytes): the best of several orders, then less and less.

    The limit sinks by a part of what is left above the bound. Items that lie below it stay at
    first; where that fails all are placed anew, and then the limit sinks more slowly. An attempt
    takes a few steps per item, at most `effort` in all. Deterministic.
    """
    if not items:
        return [], 0
    bound = bound_of(items) if bound is None else bound
    orders = _orders(items)
    offsets, total = min((place_in_order(items, o) for o in orders[1:]), key=lambda f: f[1])
    rivals, random = rivals_of(items), Random(0)
    size = np.array([i.bytes for i in items])
    part, anew = 2, 0
    while total > bound and effort > 0 and part <= _LEAST:
        sunk = max((total - bound) // part, ALIGNMENT)
        limit = max((total - sunk) // ALIGNMENT * ALIGNMENT, bound)
        steps = min(_OWN + _EACH * len(items), effort)
        start = np.array(offsets)
        start[start + size > limit] = -1
        if anew % 2:
            start[:] = -1
        found, used = _ejected(items, orders[anew // 2 % 2], rivals, start, limit, steps, random)
        effort -= used
        if found is not None:
            offsets, total, anew = found.tolist(), end_of(items, found), 0
        else:
            anew += 1
            part *= 1 + (anew % 2 == 0)
    return offsets, total


def _orders(items: Sequence[Item]) -> list[list[int]]:
    """Return the items as they come, by bytes times calls, and by bytes."""
    first = [int(i.pieces[:, 2].min()) for i in items]
    calls = [int(i.pieces[:, 3].max()) - f + 1 for i, f in zip(items, first, strict=True)]
    size = [i.bytes for i in items]
    numbers = range(len(items))
    return [
        sorted(numbers, key=lambda k: (first[k], -size[k])),
        sorted(numbers, key=lambda k: (-size[k] * calls[k], first[k])),
        sorted(numbers, key=lambda k: (-size[k], first[k])),
    ]


def _ejected(
    items: Sequence[Item],
    order: Sequence[int],
    rivals: Sequence[Rivals],
    offsets: Rows,
    limit: int,
    steps: int,
    random: Random,
) -> tuple[Rows | None, int]:
    """Place the items without an offset, which is -1, so that all end below a limit.

    Return the offsets, None without success, and the steps taken.

    An item without room takes it from those that were hardest to place least often, which are
    placed again right away: guided ejection search (Nagata and Braysy, "A powerful route
    minimization heuristic for the vehicle routing problem with time windows", 2009).
    """
    trouble = np.ones(len(items), np.int64)
    waiting = [k for k in order if offsets[k] < 0][::-1]
    for step in range(steps):
        if not waiting:
            return offsets, step
        item = waiting.pop()
        most = (limit - items[item].bytes) // ALIGNMENT * ALIGNMENT
        at = lowest(rivals[item], offsets)
        if at > most:
            if most < 0:
                break
            trouble[item] += 1
            at, ejected = _least_trouble(rivals[item], offsets, trouble, most, random)
            offsets[ejected] = -1
            waiting += ejected
        offsets[item] = at
    return None, steps


def _least_trouble(
    rivals: Rivals, offsets: Rows, trouble: Rows, most: int, random: Random
) -> tuple[int, list[int]]:
    """Return an offset up to `most` where rivals were least trouble so far, and those rivals."""
    at = offsets[rivals.index]
    placed = at >= 0
    index, at = rivals.index[placed], at[placed]
    low, high = at + rivals.low[placed], at + rivals.high[placed]
    places = np.concatenate(([0, most], low, high))
    places = places[(places >= 0) & (places <= most)]
    if len(low) <= _FEW:
        cost = ((places[:, None] > low) & (places[:, None] < high)) @ trouble[index]
    else:
        begun, ended = low.argsort(kind="stable"), high.argsort(kind="stable")
        cost = _sums(trouble[index[begun]])[np.searchsorted(low[begun], places, "left")]
        cost -= _sums(trouble[index[ended]])[np.searchsorted(high[ended], places, "right")]
    best = places[cost == cost.min()]
    chosen = int(best[random.randrange(len(best))])
    return chosen, np.unique(index[(low < chosen) & (chosen < high)]).tolist()


def _sums(numbers: Rows) -> Rows:
    """Return the sums of the first none, one, two ... numbers."""
    return np.concatenate(([0], np.cumsum(numbers)))
