"""Make LEAKY_RELU models over scales and zero points."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.random import Generator

from op_models import _draw as draw
from op_models import _unary as unary
from op_models._unary import ROUNDS as ROUNDS


def model(given: tuple[float, int], made: tuple[float, int], alpha: float) -> draw.Model:
    return unary.model("LEAKY_RELU", unary.SHAPE, given, made, Alpha=alpha)


def fixed() -> Iterator[draw.Model]:
    for given, made in unary.scales(0):
        yield model(given, made, abs(given[1]) / 100)


def drawn(random: Generator) -> draw.Model:
    return model(*unary.drawn(random), float(random.uniform(0, 2)))
