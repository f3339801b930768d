"""Make LOGISTIC models over the scales and zero points that occur."""

from __future__ import annotations

from collections.abc import Iterator

from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(source: tuple[int, ...], scale: float, zero: int) -> draw.Model:
    b = Builder()
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor(source, scale=1 / 256, zero=-128)
    b.operator("LOGISTIC", [x], y)
    return draw.Model(f"logistic {source} scale {scale} zero {zero}", b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    for zero in (-128, -1, 0, 127):
        for exponent in range(-20, 3, 2):
            yield model((1, 16, 16), 2.0**exponent * 1.1, zero)


def drawn(random: Generator) -> draw.Model:
    return model(draw.shape(random), draw.scale(random, -20, 2.9), draw.zero_point(random))
