"""Turn the float weights of every layer into stored ones: how to round, and to what values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.quantize.codebook import nearest, quantize_to_codebook
from tinydeploy.quantize.feedback import with_feedback
from tinydeploy.quantize.normal import WEIGHTS_AXIS
from tinydeploy.quantize.rewrite import Activations, bias_floor
from tinydeploy.quantize.squant import squant
from tinydeploy.quantize.weights import QuantizedWeights, per_channel, quantize_weights, to_nearest

Array = NDArray[Any]
Reals = NDArray[np.float64]

# "feedback" needs the moments of what the layers read.
ROUNDINGS = ("nearest", "squant", "feedback")


def store_weights(
    graph: Graph,
    stored: Activations,
    bits_of: Callable[[int], int],
    rounding: str,
    codebooks: bool,
    moments: Mapping[int, Reals],
) -> dict[int, QuantizedWeights]:
    """Return the stored weights of every layer with constant ones, by position.

    `moments` are those of feedback.moments, for rounding "feedback". With `codebooks` weights of
    4 bits are values of a codebook where the layer's outputs then err less: measured by the
    moments where there are some, else by the weights' own errors.
    """
    result = {}
    for position, node in enumerate(graph.nodes):
        data = graph.tensor(node.inputs[1]).data if node.op in WEIGHTS_AXIS else None
        if data is None:
            continue
        axis, bits, floor = (
            WEIGHTS_AXIS[node.op],
            bits_of(position),
            bias_floor(graph, node, stored),
        )
        moment = moments.get(position)

        def rounded(scaled: Array, axis: int, largest: int, moment: Any = moment) -> Array:
            if moment is not None:
                return with_feedback(scaled, axis, moment, lambda v: _uniform(v, largest))
            return (squant if rounding == "squant" else to_nearest)(scaled, axis, largest)

        best = quantize_weights(data, axis, bits, rounded, floor)
        if codebooks and bits == 4:
            book = _book(data, axis, floor, moment)
            plain = best if moment is not None else quantize_weights(data, axis, bits, floor=floor)
            if _error(data, book, moment) < _error(data, plain, moment):
                best = book
        result[position] = best
    return result


def _uniform(values: Reals, largest: int) -> Reals:
    rounded: Reals = np.clip(np.rint(values), -largest, largest)
    return rounded


def _book(data: Array, axis: int, floor: Array | float, moment: Reals | None) -> QuantizedWeights:
    """Return weights in a codebook, rounded with feedback where there are moments."""
    book = quantize_to_codebook(data, axis, floor)
    if moment is None:
        return book
    grid = np.unique(book.values).astype(np.float64)
    scaled = data / per_channel(book.scales, data.ndim, axis)
    values = with_feedback(scaled, axis, moment, lambda v: nearest(grid, v))
    return QuantizedWeights(values, book.scales, axis)


def _error(data: Array, stored: QuantizedWeights, moment: Reals | None) -> float:
    """Return the squared error of the weights, or of the outputs that the moments stand for."""
    scales = per_channel(stored.scales, data.ndim, stored.axis).astype(np.float64)
    errors = np.moveaxis(stored.values * scales - data, stored.axis, 0)
    if moment is None:
        return float((errors**2).sum())
    rows = errors.reshape(moment.shape[0], -1, moment.shape[1])
    return float((np.matmul(rows, moment) * rows).sum())
