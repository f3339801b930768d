"""Make NARROW models: values to packed indices and back, rows of any length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from op_models import _draw as draw
from tinydeploy.importers import tdm
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ops import _levels, narrow, widen

ROUNDS = 1


def model(shape: tuple[int, ...], levels: np.ndarray) -> draw.Model:
    """Return a network of the pair; it gives the packed bytes, too."""
    values, q = np.sort(levels).astype(np.int8).tobytes(), Quantization((0.5,), (-3,))
    packed = _levels.packed_shape(shape, _levels.BITS[len(levels)])
    graph = Graph(
        "narrow",
        (
            Tensor("x", shape, DType.INT8, q),
            Tensor("packed", packed, DType.INT8, q),
            Tensor("y", shape, DType.INT8, q),
        ),
        (
            Node("narrow", "NARROW", (0,), (1,), narrow.Attributes(values)),
            Node("widen", "WIDEN", (1,), (2,), widen.Attributes(values, shape)),
        ),
        (0,),
        (1, 2),
    )
    return draw.Model(f"{len(levels)} levels of {shape}", tdm.to_bytes(graph), litert=False)


def fixed() -> Iterator[draw.Model]:
    for shape in ((1, 5, 3, 3), (1, 4, 4, 8), (1, 1, 1, 1), (2, 3, 5), (1, 7), (9,), (1, 3, 7, 5)):
        yield model(shape, np.arange(-8, 8))
        yield model(shape, np.arange(-128, 128, 17))
        yield model(shape, np.array([-128, -1, 0, 127]))


def drawn(random: Generator) -> draw.Model:
    count = int(random.choice([16, 4]))
    shape = (1, *(draw.integer(random, 1, 9) for _ in range(3)))
    return model(shape, random.choice(np.arange(-128, 128), count, replace=False))
