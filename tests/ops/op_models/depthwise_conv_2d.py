"""Make DEPTHWISE_CONV_2D models: multipliers, strides, dilations, paddings, biases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    source: tuple[int, int, int, int],
    multiplier: int,
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    padding: int,
    activation: int,
    zeros: tuple[int, int],
) -> draw.Model:
    b = Builder()
    scale = draw.scale(random, -7, -2)
    x = b.tensor(source, scale=scale, zero=zeros[0])
    channels = source[3] * multiplier
    kernel = (1, rows[0], columns[0], channels)
    extra, out_scale = draw.add_weights(b, random, scale, kernel, channels, 3, rows[0] * columns[0])
    height = draw.window_output(source[1], *rows, padding)
    width = draw.window_output(source[2], *columns, padding)
    y = b.tensor((1, height, width, channels), scale=out_scale, zero=zeros[1])
    b.operator(
        "DEPTHWISE_CONV_2D", [x, *extra], y, Padding=padding, FusedActivationFunction=activation,
        DepthMultiplier=multiplier, StrideH=rows[1], StrideW=columns[1],
        DilationHFactor=rows[2], DilationWFactor=columns[2],
    )  # fmt: skip
    text = (
        f"depthwise {source} times {multiplier} rows {rows} columns {columns} padding {padding} "
        f"activation {activation} zeros {zeros}"
    )
    return draw.Model(text, b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(2)
    for stride in (1, 2, 3):
        for dilation in (1, 2, 3):
            for padding in (0, 1):
                yield model(
                    random, (1, 8, 7, 3), 1, (3, stride, dilation), (2, stride, dilation),
                    padding, 0, (127, -7),
                )  # fmt: skip
    for multiplier in (1, 2, 3, 5, 8):
        yield model(random, (1, 4, 5, 2), multiplier, (3, 1, 1), (3, 2, 1), 0, 1, (-128, 0))
    yield model(random, (1, 6, 6, 1), 8, (4, 2, 1), (4, 2, 1), 0, 3, (-128, -128))
    for activation in range(4):
        yield model(random, (1, 4, 4, 2), 1, (3, 1, 1), (3, 1, 1), 1, activation, (127, 127))


def drawn(random: Generator) -> draw.Model:
    padding = draw.integer(random, 0, 1)
    source = draw.image(random)
    return model(
        random,
        source,
        draw.integer(random, 1, 3),
        draw.window(random, source[1], padding),
        draw.window(random, source[2], padding),
        padding,
        draw.activation(random),
        (draw.zero_point(random), draw.zero_point(random)),
    )
