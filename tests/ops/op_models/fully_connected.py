"""Make FULLY_CONNECTED models: ranks, kept axes, one scale or many, no bias."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    source: tuple[int, ...],
    depth: int,
    units: int,
    keep: bool,
    activation: int,
    zeros: tuple[int, int],
) -> draw.Model:
    b = Builder()
    scale = draw.scale(random, -7, -2)
    x = b.tensor(source, scale=scale, zero=zeros[0])
    extra, out_scale = draw.add_weights(b, random, scale, (units, depth), units, 0, depth)
    out = (*source[:-1], units) if keep else (int(np.prod(source)) // depth, units)
    y = b.tensor(out, scale=out_scale, zero=zeros[1])
    b.operator(
        "FULLY_CONNECTED", [x, *extra], y, FusedActivationFunction=activation, KeepNumDims=keep
    )
    text = f"dense {source} depth {depth} units {units} keep {keep} zeros {zeros}"
    return draw.Model(text, b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(3)
    for source, depth in (((1, 9), 9), ((4, 6), 6), ((1, 3, 2, 5), 30), ((2, 3, 4), 4)):
        yield model(random, source, depth, 5, False, 0, (-128, 127))
        if source[-1] == depth:
            yield model(random, source, depth, 5, True, 0, (127, -128))
    for activation in range(4):
        yield model(random, (1, 16), 16, 10, False, activation, (3, -100))
    yield model(random, (1, 640), 640, 3, False, 0, (-128, -128))
    yield model(random, (1, 1), 1, 1, False, 0, (0, 0))


def drawn(random: Generator) -> draw.Model:
    source = draw.shape(random, draw.integer(random, 2, 4), 12)
    keep = bool(random.random() < 0.4)
    depth = source[-1]
    if not keep and random.random() < 0.3:
        depth = int(np.prod(source))
    return model(
        random, source, depth, draw.integer(random, 1, 12), keep, draw.activation(random),
        (draw.zero_point(random), draw.zero_point(random)),
    )  # fmt: skip
