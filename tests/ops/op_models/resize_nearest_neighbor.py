"""Make RESIZE_NEAREST_NEIGHBOR models: three conventions, larger and smaller."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw

CONVENTIONS = ((False, False), (True, False), (False, True))


def model(
    random: Generator,
    source: tuple[int, int, int, int],
    height: int,
    width: int,
    convention: tuple[bool, bool],
) -> draw.Model:
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor((1, height, width, source[3]), scale=scale, zero=zero)
    size = b.constant(np.array([height, width], np.int32))
    b.operator(
        "RESIZE_NEAREST_NEIGHBOR", [x, size], y,
        AlignCorners=convention[0], HalfPixelCenters=convention[1],
    )  # fmt: skip
    text = f"resize {source} to {height}x{width} align, half pixel {convention}"
    return draw.Model(text, b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(13)
    for convention in CONVENTIONS:
        for source, height, width in (
            ((1, 4, 4, 3), 8, 8), ((1, 3, 5, 2), 7, 4), ((1, 9, 8, 1), 2, 3), ((1, 1, 1, 4), 3, 5),
            ((1, 5, 6, 2), 1, 1), ((1, 4, 5, 3), 4, 5), ((1, 2, 3, 1), 31, 47),
        ):  # fmt: skip
            yield model(random, source, height, width, convention)


def drawn(random: Generator) -> draw.Model:
    sizes = draw.integer(random, 1, 20), draw.integer(random, 1, 20)
    convention = CONVENTIONS[draw.integer(random, 0, 2)]
    return model(random, draw.image(random), *sizes, convention)
