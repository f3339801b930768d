"""Make TRANSPOSE models: every permutation of every rank."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(random: Generator, source: tuple[int, ...], order: tuple[int, ...]) -> draw.Model:
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor([source[a] for a in order], scale=scale, zero=zero)
    b.operator("TRANSPOSE", [x, b.constant(np.array(order, np.int32))], y)
    return draw.Model(f"transpose {source} order {order}", b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(9)
    for rank in range(1, 5):
        for order in permutations(range(rank)):
            yield model(random, (2, 3, 4, 5)[:rank], order)


def drawn(random: Generator) -> draw.Model:
    source = tuple(draw.integer(random, 1, 6) for _ in range(draw.integer(random, 1, 4)))
    order = [int(a) for a in random.permutation(len(source))]
    if random.random() < 0.3:
        order = [a - len(source) * draw.integer(random, 0, 1) for a in order]
    return model(random, source, tuple(order))
