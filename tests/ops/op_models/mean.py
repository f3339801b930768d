"""Make MEAN models: every set of axes of every rank, kept and dropped, some negative."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    source: tuple[int, ...],
    axes: tuple[int, ...],
    keep: bool,
    zeros: tuple[int, int],
    ratio: float,
) -> draw.Model:
    b = Builder()
    scale = draw.scale(random, -7, -2)
    x = b.tensor(source, scale=scale, zero=zeros[0])
    positive = {a % len(source) for a in axes}
    out = [1 if a in positive else s for a, s in enumerate(source) if keep or a not in positive]
    y = b.tensor(out, scale=float(np.float32(scale / ratio)), zero=zeros[1])
    b.operator("MEAN", [x, b.constant(np.array(axes, np.int32))], y, KeepDims=keep)
    text = f"mean {source} axes {axes} keep {keep} zeros {zeros} ratio {ratio}"
    return draw.Model(text, b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(6)
    for rank in range(1, 5):
        for count in range(1, rank + 1):
            for axes in combinations(range(rank), count):
                source = draw.shape(random, rank, 6)
                for keep in (False, True):
                    signed = tuple(a - rank * draw.integer(random, 0, 1) for a in axes)
                    yield model(random, source, signed, keep, (-128, 127), 1.3)
    yield model(random, (1, 25, 5, 64), (1, 2), False, (-128, -128), 3.7)
    yield model(random, (1, 48, 41, 3), (1, 2), True, (127, -128), 1.0)
    yield model(random, (1, 7, 9, 2), (1, 2, -2), False, (0, 0), 1.0)
    yield model(random, (2, 3, 4, 5), (0, 2), False, (3, -4), 1.0)
    for ratio in (2.0**-6, 2.0**5, 1.0, 0.999):
        yield model(random, (1, 3, 7, 5), (1, 2), True, (-1, 1), ratio)


def drawn(random: Generator) -> draw.Model:
    source = draw.shape(random, high=12)
    axes = [a for a in range(len(source)) if random.random() < 0.5] or [len(source) - 1]
    signed = tuple(a - len(source) * draw.integer(random, 0, 1) for a in axes)
    return model(
        random, source, signed, bool(random.random() < 0.5),
        (draw.zero_point(random), draw.zero_point(random)), 2.0 ** random.uniform(-3, 4),
    )  # fmt: skip
