"""Make CONCATENATION models: every axis, up to five inputs, twice the same, constants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    base: tuple[int, ...],
    axis: int,
    sizes: list[int],
    *,
    twice: bool = False,
    constant: int | None = None,
) -> draw.Model:
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    at = axis % len(base)
    inputs = []
    for k, size in enumerate(sizes):
        shape = (*base[:at], size, *base[at + 1 :])
        data = random.integers(-128, 128, shape) if k == constant else None
        inputs.append(b.tensor(shape, scale=scale, zero=zero, data=data))
    given = [i for k, i in enumerate(inputs) if k != constant]
    read = [*inputs, inputs[0]] if twice else inputs
    joined = sum(sizes) + (sizes[0] if twice else 0)
    y = b.tensor((*base[:at], joined, *base[at + 1 :]), scale=scale, zero=zero)
    b.operator("CONCATENATION", read, y, Axis=axis, FusedActivationFunction=0)
    text = f"concatenation {base} axis {axis} sizes {sizes} twice {twice} constant {constant}"
    return draw.Model(text, b.build(given, [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(11)
    for base in ((1, 4, 3, 2), (3, 4, 2), (5, 2), (6,)):
        for axis in range(-len(base), len(base)):
            yield model(random, base, axis, [2, 1, 3])
            yield model(random, base, axis, [2, 3], twice=True)
            yield model(random, base, axis, [1, 2, 1, 4], constant=1)
    yield model(random, (1, 3, 3, 2), 3, [1, 2, 3, 4, 5])
    yield model(random, (1, 3, 3, 2), 1, [5, 4, 3, 2, 1])
    yield model(random, (2, 3, 3, 2), 2, [2, 2])
    yield model(random, (1, 3, 3, 2), 0, [1, 2, 1])
    yield model(random, (1, 3, 3, 2), 2, [4])


def drawn(random: Generator) -> draw.Model:
    base = draw.shape(random, high=5)
    sizes = [draw.integer(random, 1, 5) for _ in range(draw.integer(random, 1, 5))]
    axis = draw.integer(random, -len(base), len(base) - 1)
    constant = 1 if len(sizes) > 1 and random.random() < 0.3 else None
    return model(random, base, axis, sizes, twice=bool(random.random() < 0.3), constant=constant)
