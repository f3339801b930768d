"""Make SOFTMAX models: depths 1 to 600, several vectors, scales and betas."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(source: tuple[int, ...], scale: float, zero: int, beta: float) -> draw.Model:
    b = Builder()
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor(source, scale=1 / 256, zero=-128)
    b.operator("SOFTMAX", [x], y, Beta=beta)
    text = f"softmax {source} scale {scale} zero {zero} beta {beta}"
    return draw.Model(text, b.build([x], [y]))


def litert_runs(source: np.ndarray, scale: float, beta: float) -> bool:
    """Tell whether LiteRT gets through: it asserts that the exponentials sum up to below 2^9."""
    distance = source.max(axis=-1, keepdims=True).astype(np.float64) - source
    return bool(np.all(np.exp(-distance * scale * beta).sum(axis=-1) < 500))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(10)
    for depth in (1, 2, 3, 10, 12, 63, 64, 65, 255, 256, 257, 600):
        yield model((1, depth), draw.scale(random, -7, 0), 5, 1.0)
    yield model((1, 511), 2.0**-10, 0, 1.0)
    for source in ((7,), (5, 4), (1, 3, 6), (1, 2, 3, 4)):
        yield model(source, 0.1, -128, 1.0)
    for exponent in range(-24, 5, 2):
        yield model((2, 9), 2.0**exponent * 1.37, 127, 1.0)
    for beta in (0.125, 0.5, 2.0, 7.5):
        yield model((3, 5), 0.05, 0, beta)


def drawn(random: Generator) -> draw.Model:
    source = draw.shape(random, high=20)
    if random.random() < 0.3:
        source = (1, draw.integer(random, 1, 600))
    scale = draw.scale(random, -12, 3)
    return model(source, scale, draw.zero_point(random), float(random.choice([1.0, 1.0, 0.7])))
