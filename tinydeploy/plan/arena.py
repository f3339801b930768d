"""Turn buffers with lifetimes into offsets, with greedy heuristics and a bounded local search."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tinydeploy.plan.layout import Buffer
from tinydeploy.plan.liveness import lower_bound

_RESTARTS = 200


# (buffer below, buffer above) -> bytes that the upper one must begin above the lower one; such a
# pair may share bytes otherwise. Fewer than 0: the "lower" one may even begin above the other.
Pairs = Mapping[tuple[int, int], int]


def _apart(buffers: Sequence[Buffer], pairs: Pairs, a: int, at: int, b: int, bt: int) -> bool:
    """Tell whether two buffers at offsets `at` and `bt` get along."""
    if at + buffers[a].bytes <= bt or bt + buffers[b].bytes <= at:
        return True
    if (a, b) in pairs and bt - at >= pairs[a, b]:
        return True
    return (b, a) in pairs and at - bt >= pairs[b, a]


@dataclass(frozen=True, slots=True)
class Rival:
    """Say how near a buffer may lie to another one of its time: it begins at least `below` bytes
    lower, or at least `above` bytes higher.
    """

    index: int
    below: int
    above: int


def rivals_of(buffers: Sequence[Buffer], pairs: Pairs = MappingProxyType({})) -> list[list[Rival]]:
    """Return, per buffer, those that live at the same time."""
    return [
        [
            Rival(
                k,
                min(b.bytes, pairs.get((index, k), b.bytes)),
                min(other.bytes, pairs.get((k, index), other.bytes)),
            )
            for k, other in enumerate(buffers)
            if k != index and other.first <= b.last and b.first <= other.last
        ]
        for index, b in enumerate(buffers)
    ]


def place_in_order(
    buffers: Sequence[Buffer], order: Sequence[int], pairs: Pairs = MappingProxyType({})
) -> tuple[list[int], int]:
    """Put each buffer at the lowest offset free over its lifetime; return (offsets, arena bytes).

    TensorFlow Lite Micro's GreedyMemoryPlanner with the order left to the caller, and with
    buffers that may overlap.
    """
    found = _place(buffers, order, rivals_of(buffers, pairs), sum(b.bytes for b in buffers))
    assert found is not None
    return found


def _place(
    buffers: Sequence[Buffer],
    order: Sequence[int],
    rivals: Sequence[Sequence[Rival]],
    limit: int,
) -> tuple[list[int], int] | None:
    """Do what place_in_order says; return None where more than `limit` bytes would be needed."""
    offsets = [-1] * len(buffers)
    total = 0
    for index in order:
        taken = sorted(
            (at - r.below, at + r.above) for r in rivals[index] if (at := offsets[r.index]) >= 0
        )
        at = 0
        for low, high in taken:  # free up to the first, and from the second on
            if at <= low:
                break
            at = max(at, high)
        offsets[index] = at
        total = max(total, at + buffers[index].bytes)
        if total > limit:
            return None
    return offsets, total


def _busiest(buffers: Sequence[Buffer]) -> dict[tuple[int, int], int]:
    """Return, per lifetime, the largest number of bytes alive at one of its steps."""
    alive = {s: sum(b.bytes for b in buffers if b.first <= s <= b.last)
             for s in {b.first for b in buffers}}  # fmt: skip
    return {
        (b.first, b.last): max(total for s, total in alive.items() if b.first <= s <= b.last)
        for b in buffers
    }


def allocate_greedy(
    buffers: Sequence[Buffer],
    pairs: Pairs = MappingProxyType({}),
    bound: int | None = None,
    restarts: int = _RESTARTS,
) -> tuple[list[int], int]:
    """Return (offsets in bytes, arena bytes): the best of several orders and of shuffled ones.

    Deterministic; stops as soon as the liveness bound is reached.
    """
    bound = lower_bound(tuple(buffers)) if bound is None else bound
    busiest = _busiest(buffers)
    keys: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda b: (-b.bytes, b.first),
        lambda b: (b.first, -b.bytes),
        lambda b: (-(b.last - b.first), -b.bytes),
        lambda b: (-b.bytes * (b.last - b.first + 1), b.first),
        lambda b: (-b.last, -b.bytes),
        lambda b: (-busiest[b.first, b.last], -(b.last - b.first), -b.bytes),
        lambda b: (-busiest[b.first, b.last], -b.bytes),
    )
    rivals = rivals_of(buffers, pairs)
    best: tuple[list[int], int] = [], sum(b.bytes for b in buffers) + 1
    best_order: list[int] = []
    for key in keys:
        order = sorted(range(len(buffers)), key=lambda i, k=key: k(buffers[i]))  # type: ignore[misc]
        found = _place(buffers, order, rivals, best[1] - 1)
        if found:
            best, best_order = found, order
    generator = random.Random(0)
    for _ in range(restarts if len(buffers) > 1 else 0):
        if best[1] <= bound:
            break
        order = list(best_order)
        for _ in range(generator.randint(1, 3)):
            order.insert(
                generator.randrange(len(order)), order.pop(generator.randrange(len(order)))
            )
        found = _place(buffers, order, rivals, best[1])
        if found:
            best, best_order = found, order
    return best


def check_no_overlap(
    buffers: Sequence[Buffer], offsets: Sequence[int], pairs: Pairs = MappingProxyType({})
) -> None:
    """Raise ValueError if two buffers alive at the same step share a byte, but for the pairs."""
    for i, a in enumerate(buffers):
        for j in range(i):
            b = buffers[j]
            together = a.first <= b.last and b.first <= a.last
            if together and not _apart(buffers, pairs, i, offsets[i], j, offsets[j]):
                raise ValueError(f"buffers '{a.label}' and '{b.label}' overlap")
