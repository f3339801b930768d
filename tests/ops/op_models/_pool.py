"""Make models of the two pools."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    name: str,
    source: tuple[int, int, int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
    padding: int,
    activation: int,
    zero: int,
) -> draw.Model:
    """Return a pool; rows and columns are (kernel, stride)."""
    b = Builder()
    scale = draw.scale(random, -6, -2)
    x = b.tensor(source, scale=scale, zero=zero)
    height = draw.window_output(source[1], *rows, 1, padding)
    width = draw.window_output(source[2], *columns, 1, padding)
    y = b.tensor((1, height, width, source[3]), scale=scale, zero=zero)
    b.operator(
        name, [x], y, Padding=padding, FusedActivationFunction=activation,
        StrideH=rows[1], StrideW=columns[1], FilterHeight=rows[0], FilterWidth=columns[0],
    )  # fmt: skip
    text = f"{name} {source} rows {rows} columns {columns} padding {padding} zero {zero}"
    return draw.Model(f"{text} activation {activation}", b.build([x], [y]))


def fixed(name: str) -> Iterator[draw.Model]:
    random = np.random.default_rng(5)
    for kernel in (1, 2, 3, 5):
        for stride in (1, 2, 3):
            for padding in (0, 1):
                yield model(
                    random, name, (1, 7, 8, 3), (kernel, stride), (kernel, stride), padding, 0, -3
                )
    for activation in range(4):
        for zero in (-128, 127, 0):
            yield model(random, name, (1, 4, 5, 2), (2, 2), (3, 1), 0, activation, zero)
    yield model(random, name, (1, 9, 9, 4), (9, 9), (9, 9), 1, 0, 0)
    yield model(random, name, (1, 2, 3, 4), (7, 1), (7, 1), 0, 0, 0)


def drawn(name: str, random: Generator) -> draw.Model:
    padding = draw.integer(random, 0, 1)
    source = draw.image(random)
    rows, columns = (
        (min(draw.integer(random, 1, 6), size if padding else 6), draw.integer(random, 1, 3))
        for size in source[1:3]
    )
    return model(
        random, name, source, rows, columns, padding, draw.activation(random),
        draw.zero_point(random),
    )  # fmt: skip
