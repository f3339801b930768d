"""Make models of one function of single elements, over scales and zero points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw

ROUNDS = 0  # random models are for the long sweeps: the C is one table look-up for all


def model(
    op: str,
    source: tuple[int, ...],
    given: tuple[float, int],
    made: tuple[float, int],
    *,
    litert: bool = True,
    alpha: tuple[int, float, int] | None = None,
    **options: Any,
) -> draw.Model:
    """Return a model; `given` and `made` are scale and zero point, `alpha` a quantised constant."""
    b = Builder()
    x = b.tensor(source, scale=given[0], zero=given[1])
    y = b.tensor(source, scale=made[0], zero=made[1])
    inputs = [x]
    if alpha is not None:
        value, scale, zero = alpha
        inputs.append(b.constant(np.full((1,) * len(source), value), "int8", scale, zero))
    b.operator(op, inputs, y, **options)
    text = f"{op} {source} {given} to {made} {alpha or ''} {options}"
    return draw.Model(text, b.build([x], [y]), litert)


SHAPE = (1, 16, 16)


def scales(seed: int, count: int = 6) -> Iterator[tuple[tuple[float, int], tuple[float, int]]]:
    """Yield scales and zero points of input and output, usual ones and extreme ratios."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield drawn(random)


def drawn(random: Generator) -> tuple[tuple[float, int], tuple[float, int]]:
    """Return scales and zero points of input and output; simple ratios make results that tie."""
    inp = draw.scale(random, -8, 0)
    ratio = random.choice([2.0 ** random.uniform(-3, 3), 2.0 ** draw.integer(random, -3, 3)])
    out = float(np.float32((np.sqrt(inp) if random.random() < 0.3 else inp) * ratio))
    return (inp, draw.zero_point(random)), (out, draw.zero_point(random))
