"""Make CONV_2D models: strides, dilations, groups, paddings, biases, activations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    source: tuple[int, int, int, int],
    filters: int,
    groups: int,
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    padding: int,
    activation: int,
    zeros: tuple[int, int],
) -> draw.Model:
    """Return a convolution; rows and columns are (kernel, stride, dilation)."""
    b = Builder()
    scale = draw.scale(random, -7, -2)
    x = b.tensor(source, scale=scale, zero=zeros[0])
    depth = source[3] // groups
    kernel = (filters, rows[0], columns[0], depth)
    extra, out_scale = draw.add_weights(
        b, random, scale, kernel, filters, 0, depth * rows[0] * columns[0]
    )
    height = draw.window_output(source[1], *rows, padding)
    width = draw.window_output(source[2], *columns, padding)
    y = b.tensor((1, height, width, filters), scale=out_scale, zero=zeros[1])
    b.operator(
        "CONV_2D", [x, *extra], y, Padding=padding, FusedActivationFunction=activation,
        StrideH=rows[1], StrideW=columns[1], DilationHFactor=rows[2], DilationWFactor=columns[2],
    )  # fmt: skip
    text = (
        f"conv {source} kernel {kernel} rows {rows} columns {columns} padding {padding} "
        f"activation {activation} zeros {zeros}"
    )
    # LiteRT refuses a convolution without bias, TensorFlow Lite Micro runs it.
    return draw.Model(text, b.build([x], [y]), litert=len(extra) == 2)


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(1)
    for stride in (1, 2, 3):
        for dilation in (1, 2, 3):
            for padding in (0, 1):
                window = (2, stride, dilation)
                yield model(
                    random, (1, 7, 8, 3), 4, 1, window, (3, stride, dilation), padding, 0, (-128, 3)
                )
    for groups, filters in ((2, 4), (3, 3), (6, 12)):
        yield model(random, (1, 5, 4, 6), filters, groups, (3, 1, 1), (2, 2, 1), 0, 1, (127, -128))
    for activation in range(4):
        yield model(random, (1, 4, 4, 2), 8, 1, (1, 1, 1), (1, 1, 1), 1, activation, (0, -10))
    for zeros in ((-128, -128), (127, 127), (-128, 127), (127, -128)):
        yield model(random, (1, 3, 5, 4), 5, 1, (3, 1, 1), (3, 1, 1), 0, 0, zeros)
    # The window reaches beyond the image on all sides.
    yield model(random, (1, 2, 2, 1), 1, 1, (5, 1, 3), (5, 2, 3), 0, 0, (-5, 5))


def drawn(random: Generator) -> draw.Model:
    padding = draw.integer(random, 0, 1)
    groups = draw.integer(random, 1, 3) if random.random() < 0.3 else 1
    _, height, width, channels = draw.image(random)
    return model(
        random,
        (1, height, width, channels * groups),
        groups * draw.integer(random, 1, 5),
        groups,
        draw.window(random, height, padding),
        draw.window(random, width, padding),
        padding,
        draw.activation(random),
        (draw.zero_point(random), draw.zero_point(random)),
    )
