"""Make models of operators with two inputs that broadcast."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw

BROADCASTS = (
    ((1, 4, 5, 3), (1, 4, 5, 3)), ((1, 4, 5, 3), (1, 1, 1, 3)), ((1, 4, 5, 3), (3,)),
    ((1, 4, 5, 3), (1,)), ((1,), (1, 4, 5, 3)), ((1, 4, 5, 3), (1, 4, 1, 1)),
    ((1, 4, 5, 3), (1, 1, 5, 1)), ((1, 1, 5, 3), (1, 4, 1, 3)), ((1, 4, 1, 3), (1, 1, 5, 1)),
    ((5, 1), (1, 3)), ((6,), (6,)), ((2, 1, 3), (2, 4, 3)), ((1, 1, 1, 1), (1, 2, 1, 3)),
    ((2, 3, 4, 2), (2, 3, 4, 2)), ((3, 2, 2, 5), (3, 2, 1, 5)),
)  # fmt: skip

# Scales for which many sums and products lie halfway between two stored values, the second
# input's share of them rounded as well.
TIES = (
    (1.0, 1.0, 2.0), (1.0, 0.5 + 2.0**-22, 2.0), (1.0, 0.25 + 2.0**-22, 0.5),
    (1.0, 1.0 - 2.0**-24, 2.0), (0.5, 0.25, 64.0), (0.75, 0.5, 0.25),
)  # fmt: skip


def model(
    random: Generator,
    name: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    constant: int | None,
    activation: int,
    zeros: tuple[int, int, int],
    same: bool = False,
    scales: tuple[float, float, float] | None = None,
) -> draw.Model:
    """Return a model; input number `constant` is a constant, `same` reads one tensor twice."""
    b = Builder()
    own = scales[:2] if scales else (draw.scale(random, -6, 0), draw.scale(random, -6, 0))
    inputs = [
        b.tensor(
            shape, scale=s, zero=z,
            data=random.integers(-128, 128, shape) if k == constant else None,
        )
        for k, (shape, s, z) in enumerate(zip(shapes, own, zeros[:2], strict=True))
    ]  # fmt: skip
    if same:
        inputs[1] = inputs[0]
    typical = own[0] * own[1] * 64 if name == "MUL" else max(own)
    out_scale = scales[2] if scales else float(np.float32(typical * 2.0 ** random.uniform(-2, 3)))
    out = np.broadcast_shapes(*shapes)
    y = b.tensor(out, scale=out_scale, zero=zeros[2])
    b.operator(name, inputs, y, FusedActivationFunction=activation)
    text = f"{name} {shapes} constant {constant} same {same} activation {activation} zeros {zeros}"
    given = [i for k, i in enumerate(dict.fromkeys(inputs)) if k != constant]
    return draw.Model(f"{text} scales {scales}", b.build(given, [y]))


def fixed(name: str) -> Iterator[draw.Model]:
    random = np.random.default_rng(4)
    for shapes in BROADCASTS:
        for constant in (None, 0, 1):
            yield model(random, name, shapes, constant=constant, activation=0, zeros=(-128, 127, 0))
    for activation in range(4):
        yield model(
            random, name, BROADCASTS[0], constant=None, activation=activation, zeros=(127, -128, -9)
        )
    yield model(
        random, name, BROADCASTS[0], constant=None, activation=0, zeros=(5, 5, 5), same=True
    )
    for scales in TIES:
        yield model(
            random, name, ((60, 60, 3),) * 2, constant=None, activation=0, zeros=(0, 0, 0),
            scales=scales,
        )  # fmt: skip


def drawn(name: str, random: Generator) -> draw.Model:
    full = draw.shape(random)
    pair = []
    for _ in range(2):
        sizes = tuple(1 if random.random() < 0.25 else s for s in full)
        while len(sizes) > 1 and sizes[0] == 1 and random.random() < 0.3:
            sizes = sizes[1:]
        pair.append(sizes)
    return model(
        random, name, (pair[0], pair[1]),
        constant=[None, None, 0, 1][draw.integer(random, 0, 3)],
        activation=draw.activation(random),
        zeros=(draw.zero_point(random), draw.zero_point(random), draw.zero_point(random)),
    )  # fmt: skip
