"""Make PAD models: height, width and channels of every rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator, source: tuple[int, ...], pads: list[tuple[int, int]], dtype: str = "int32"
) -> draw.Model:
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    x = b.tensor(source, scale=scale, zero=zero)
    out = [a + s + e for s, (a, e) in zip(source, pads, strict=True)]
    y = b.tensor(out, scale=scale, zero=zero)
    b.operator("PAD", [x, b.constant(np.array(pads), dtype)], y)
    return draw.Model(f"pad {source} by {pads} zero {zero}", b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(7)
    yield model(random, (1, 4, 5, 3), [(0, 0), (1, 2), (0, 0), (0, 0)])
    yield model(random, (1, 4, 5, 3), [(0, 0), (0, 0), (3, 1), (0, 0)])
    yield model(random, (1, 4, 5, 3), [(0, 0), (0, 0), (0, 0), (2, 5)])
    yield model(random, (1, 4, 5, 3), [(0, 0), (2, 1), (1, 2), (3, 4)])
    yield model(random, (1, 4, 5, 3), [(0, 0)] * 4)
    yield model(random, (3, 4, 5, 2), [(0, 0), (0, 0), (1, 1), (0, 3)])
    yield model(random, (4, 5, 3), [(1, 0), (0, 1), (1, 1)])
    yield model(random, (5, 3), [(2, 0), (0, 2)], "int64")
    yield model(random, (6,), [(3, 4)])


def drawn(random: Generator) -> draw.Model:
    source = draw.shape(random)
    pads = [(draw.integer(random, 0, 3), draw.integer(random, 0, 3)) for _ in source]
    if len(source) == 4:
        pads[0] = (0, 0)
    return model(random, source, pads)
