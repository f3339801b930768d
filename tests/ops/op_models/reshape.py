"""Make RESHAPE models: the shape as a constant, with -1, or from the options alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator, source: tuple[int, ...], wanted: tuple[int, ...], *, constant: bool = True
) -> draw.Model:
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    x = b.tensor(source, scale=scale, zero=zero)
    rest = int(np.prod(source)) // int(np.prod([s for s in wanted if s != -1]))
    y = b.tensor([rest if s == -1 else s for s in wanted], scale=scale, zero=zero)
    inputs = [x, b.constant(np.array(wanted, np.int32))] if constant else [x]
    b.operator("RESHAPE", inputs, y, NewShape=list(wanted))
    return draw.Model(f"reshape {source} to {wanted} constant {constant}", b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(8)
    for constant in (True, False):
        yield model(random, (1, 4, 6), (1, 24), constant=constant)
        yield model(random, (1, 4, 6), (-1, 3), constant=constant)
        yield model(random, (24,), (2, -1, 4), constant=constant)
        yield model(random, (1, 2, 3, 4), (-1,), constant=constant)
        yield model(random, (5,), (1, 1, 1, 5), constant=constant)
    yield model(random, (2, 3, 4), (1, 2, 1, 3, 4))


def drawn(random: Generator) -> draw.Model:
    source = draw.shape(random)
    wanted = [int(s) for s in random.permutation(source)]
    if random.random() < 0.5:
        wanted[draw.integer(random, 0, len(wanted) - 1)] = -1
    return model(random, source, tuple(wanted), constant=bool(random.random() < 0.7))
