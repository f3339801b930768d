"""Make PRELU models over scales and zero points."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.random import Generator

from op_models import _draw as draw
from op_models import _unary as unary
from op_models._unary import ROUNDS as ROUNDS


def model(
    given: tuple[float, int], made: tuple[float, int], alpha: tuple[int, float, int]
) -> draw.Model:
    return unary.model("PRELU", unary.SHAPE, given, made, alpha=alpha)


def fixed() -> Iterator[draw.Model]:
    for given, made in unary.scales(0):
        yield model(given, made, (given[1], 0.01, made[1]))


def drawn(random: Generator) -> draw.Model:
    return model(
        *unary.drawn(random),
        (draw.integer(random, -128, 127), draw.scale(random, -9, -5), draw.zero_point(random)),
    )
