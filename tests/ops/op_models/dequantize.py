"""Make DEQUANTIZE models: the float output of an int8 network."""

from __future__ import annotations

from collections.abc import Iterator

from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(source: tuple[int, ...], scale: float, zero: int, float_input: bool) -> draw.Model:
    """Return a network that only leaves the integers, or enters and leaves them."""
    b = Builder()
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor(source, "float32", None)
    given = x
    if float_input:
        given = b.tensor(source, "float32", None)
        b.operator("QUANTIZE", [given], x)
    b.operator("DEQUANTIZE", [x], y)
    text = f"dequantize {source} scale {scale} zero {zero} float input {float_input}"
    return draw.Model(text, b.build([given], [y]))


def fixed() -> Iterator[draw.Model]:
    for zero in (-128, -1, 0, 127):
        for scale in (0.1, 1.0, 1e-5, 37.0):
            yield model((1, 16, 16), scale, zero, False)
            yield model((1, 16, 16), scale, zero, True)


def drawn(random: Generator) -> draw.Model:
    return model(
        draw.shape(random), draw.scale(random), draw.zero_point(random),
        bool(random.random() < 0.5),
    )  # fmt: skip
