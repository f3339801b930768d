"""Make QUANTIZE models: int8 to int8 inside, float to int8 at the border."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    source: tuple[int, ...], scale: float, ratio: float, zeros: tuple[int, int], border: bool
) -> draw.Model:
    """Return a requantisation; with `border` the model's input is float and quantised first."""
    b = Builder()
    x = b.tensor(source, scale=scale, zero=zeros[0])
    y = b.tensor(source, scale=float(np.float32(scale / ratio)), zero=zeros[1])
    given = x
    if border:
        given = b.tensor(source, "float32", None)
        b.operator("QUANTIZE", [given], x)
    b.operator("QUANTIZE", [x], y)
    text = f"quantize {source} scale {scale} ratio {ratio} zeros {zeros} border {border}"
    return draw.Model(text, b.build([given], [y]))


def fixed() -> Iterator[draw.Model]:
    for exponent in range(-20, 6):
        yield model((2, 128), 0.1, 2.0**exponent * 1.23, (-128, 127), False)
    for zeros in ((-128, -128), (127, -128), (0, 0), (-128, 127)):
        for ratio in (1.0, 0.5, 2.0, 0.75):
            yield model((1, 16, 16), 0.25, ratio, zeros, False)
            yield model((1, 16, 16), 0.25, ratio, zeros, True)


def drawn(random: Generator) -> draw.Model:
    return model(
        draw.shape(random), draw.scale(random), 2.0 ** random.uniform(-6, 5),
        (draw.zero_point(random), draw.zero_point(random)), bool(random.random() < 0.3),
    )  # fmt: skip
