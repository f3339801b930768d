"""Turn buffers with lifetimes into offsets, with greedy heuristics and a bounded local search."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tinydeploy.plan.layout import Buffer
from tinydeploy.plan.liveness import lower_bound

_RESTARTS = 200


def place_in_order(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    """Put each buffer at the lowest offset free over its lifetime; return (offsets, arena bytes).

    TensorFlow Lite Micro's GreedyMemoryPlanner with the order left to the caller.
    """
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    total = 0
    for index in order:
        b = buffers[index]
        at = 0
        for offset, end, first, last in sorted(placed):
            if first <= b.last and b.first <= last:
                if offset - at >= b.bytes:
                    break
                at = max(at, end)
        offsets[index] = at
        placed.append((at, at + b.bytes, b.first, b.last))
        total = max(total, at + b.bytes)
    return offsets, total


def allocate_greedy(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Return (offsets in bytes, arena bytes): the best of several orders and of shuffled ones.

    Deterministic; stops as soon as the liveness bound is reached.
    """
    bound = lower_bound(tuple(buffers))
    keys: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda b: (-b.bytes, b.first),
        lambda b: (b.first, -b.bytes),
        lambda b: (-(b.last - b.first), -b.bytes),
        lambda b: (-b.bytes * (b.last - b.first + 1), b.first),
        lambda b: (-b.last, -b.bytes),
    )
    best: tuple[list[int], int] | None = None
    best_order: list[int] = []
    for key in keys:
        order = sorted(range(len(buffers)), key=lambda i, k=key: k(buffers[i]))  # type: ignore[misc]
        offsets, total = place_in_order(buffers, order)
        if best is None or total < best[1]:
            best, best_order = (offsets, total), order
    assert best is not None
    generator = random.Random(0)
    for _ in range(_RESTARTS if len(buffers) > 1 else 0):
        if best[1] <= bound:
            break
        order = list(best_order)
        for _ in range(generator.randint(1, 3)):
            order.insert(
                generator.randrange(len(order)), order.pop(generator.randrange(len(order)))
            )
        offsets, total = place_in_order(buffers, order)
        if total <= best[1]:
            best, best_order = (offsets, total), order
    return best


def check_no_overlap(buffers: Sequence[Buffer], offsets: Sequence[int]) -> None:
    """Raise ValueError if two buffers alive at the same step share a byte."""
    for i, a in enumerate(buffers):
        for j in range(i):
            b = buffers[j]
            if a.first <= b.last and b.first <= a.last:
                apart = offsets[i] + a.bytes <= offsets[j] or offsets[j] + b.bytes <= offsets[i]
                if not apart:
                    raise ValueError(f"buffers '{a.label}' and '{b.label}' overlap")
