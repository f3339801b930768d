"""Make ELU models over scales and zero points."""

from __future__ import annotations

from collections.abc import Iterator

from numpy.random import Generator

from op_models import _draw as draw
from op_models import _unary as unary
from op_models._unary import ROUNDS as ROUNDS


def model(given: tuple[float, int], made: tuple[float, int]) -> draw.Model:
    return unary.model("ELU", unary.SHAPE, given, made, litert=False)


def fixed() -> Iterator[draw.Model]:
    for given, made in unary.scales(0):
        yield model(given, made)


def drawn(random: Generator) -> draw.Model:
    return model(*unary.drawn(random))
