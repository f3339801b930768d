"""Turn items into what keeps their offsets apart, and into the first free ones in some order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from tinydeploy.plan.layout import ALIGNMENT, Item, Rows

_PAIRS = 1 << 22  # of pieces compared at a time


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
    so all is rounded to these. Where two items collide in several ways without a gap, that is one.
    """
    if not items:
        return []
    pieces = np.concatenate([i.pieces for i in items])
    owner = np.repeat(np.arange(len(items)), [len(i.pieces) for i in items])
    start, end, first, last = pieces.T
    step = max(_PAIRS // len(pieces), 1)
    pairs = []
    for k in range(0, len(pieces), step):
        rows = slice(k, k + step)
        met = (first[rows, None] <= last) & (last[rows, None] >= first)
        mine, other = met.nonzero()
        pairs.append((mine + k, other))
    mine, other = (np.concatenate(p) for p in zip(*pairs, strict=True))
    strange = owner[mine] != owner[other]
    mine, other = mine[strange], other[strange]
    low = (start[other] - end[mine]) // ALIGNMENT
    high = -((start[mine] - end[other]) // ALIGNMENT)
    # Put all on one line, each pair of items in a stretch of its own, and unite what meets there.
    stretch = 2 * int(max(high.max(initial=0), -low.min(initial=0))) + 1
    base = (owner[mine] * len(items) + owner[other]) * stretch
    low, high = low + base, high + base
    order = low.argsort(kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    begins = np.concatenate([[True], low[1:] >= high[:-1]])[: len(low)]
    ends = np.append(begins[1:], True)[: len(low)]
    base = base[order][begins]
    low, high = (low[begins] - base) * ALIGNMENT, (high[ends] - base) * ALIGNMENT
    item, index = np.divmod(base // stretch, len(items))
    at = np.searchsorted(item, np.arange(len(items) + 1)).tolist()
    return [Rivals(index[a:b], low[a:b], high[a:b]) for a, b in pairwise(at)]


def place_in_order(items: Sequence[Item], order: Sequence[int]) -> tuple[list[int], int]:
    """Put each item at the lowest offset that is free while it is in use; return (offsets, bytes).

    TensorFlow Lite Micro's GreedyMemoryPlanner with the order left to the caller, and with items
    whose pieces are in use at different times.
    """
    rivals, offsets = rivals_of(items), np.full(len(items), -1, np.int64)
    for index in order:
        offsets[index] = lowest(rivals[index], offsets)
    return offsets.tolist(), end_of(items, offsets)


def end_of(items: Sequence[Item], offsets: Iterable[int]) -> int:
    """Return the bytes of an arena with items at given offsets."""
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


def bound_of(items: Sequence[Item]) -> int:
    """Return the largest number of bytes in use at one call: no arena can be smaller."""
    if not items:
        return 0
    start, end, first, last = np.concatenate([i.pieces for i in items]).T
    base = first.min()
    alive = np.bincount(first - base, end - start, minlength=int(last.max() - base) + 2)
    alive -= np.bincount(last - base + 1, end - start, minlength=len(alive))
    return int(np.cumsum(alive).max())


def check_no_overlap(items: Sequence[Item], offsets: Sequence[int]) -> None:
    """Raise ValueError if pieces of two items that are in use at the same time share a byte."""
    at = np.array(offsets, np.int64)
    for k, rivals in enumerate(rivals_of(items)):
        apart = at[k] - at[rivals.index]
        hit = np.flatnonzero((apart > rivals.low) & (apart < rivals.high))
        if len(hit):
            other = items[int(rivals.index[hit[0]])].label
            raise ValueError(f"'{items[k].label}' and '{other}' overlap")
