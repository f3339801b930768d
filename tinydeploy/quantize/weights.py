"""Turn float weights into small integers with one scale per output channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedWeights:
    """Hold stored integers of the shape of the weights, and a scale per index along `axis`."""

    values: Integers
    scales: NDArray[np.float32]
    axis: int

    def real(self) -> Floats:
        """Return the real numbers that the integers stand for."""
        return (self.values * per_channel(self.scales, self.values.ndim, self.axis)).astype(
            np.float32
        )


# Integers for weights already divided by their scales: (scaled, axis, largest) -> stored.
Rounding = Callable[[Floats, int, int], Integers]


def per_channel(values: NDArray[np.float32], rank: int, axis: int) -> NDArray[np.float32]:
    """Return one value per channel, shaped so that it broadcasts along the other axes."""
    shape = [1] * rank
    shape[axis] = len(values)
    return values.reshape(shape)


def largest_of(bits: int) -> int:
    """Return the largest stored weight: symmetric, so that the smallest is its negative."""
    return int(2 ** (bits - 1)) - 1


def to_nearest(scaled: Floats, axis: int, largest: int) -> Integers:
    """Round to the nearest integer, halves to even, within the symmetric range."""
    return np.clip(np.rint(scaled), -largest, largest).astype(np.int8)


def scales_by_maximum(weights: Floats, axis: int, bits: int) -> NDArray[np.float32]:
    """Return the scale per channel that spans its largest weight; 0 for a channel of zeros."""
    others = tuple(k for k in range(weights.ndim) if k != axis)
    scales: Floats = (np.abs(weights).max(axis=others) / largest_of(bits)).astype(np.float32)
    return scales


def scales_by_error(weights: Floats, axis: int, bits: int, candidates: int = 60) -> Floats:
    """Return the scale per channel with the least squared rounding and clipping error.

    Tried are the maximum's scale and `candidates` equal steps below, down to a third of it.
    """
    others = tuple(k for k in range(weights.ndim) if k != axis)
    widest = scales_by_maximum(weights, axis, bits)
    best, least = widest.copy(), np.full(len(widest), np.inf)
    for share in np.linspace(1.0, 1 / 3, candidates):
        scales = (widest * share).astype(np.float32)
        safe = per_channel(np.where(scales > 0, scales, 1), weights.ndim, axis)
        restored = to_nearest(weights / safe, axis, largest_of(bits)) * safe
        error = ((restored - weights) ** 2).sum(axis=others)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return best.astype(np.float32)


def quantize_weights(
    weights: Floats,
    axis: int,
    bits: int,
    rounding: Rounding = to_nearest,
    floor: NDArray[np.float64] | float = 0.0,
) -> QuantizedWeights:
    """Return weights of `bits` bits; the scales are at least `floor`, and never 0.

    At 8 bits a scale spans its channel's largest weight; with fewer it is the one of least
    squared error.
    """
    choose = scales_by_maximum if bits >= 8 else scales_by_error
    scales = np.maximum(choose(weights, axis, bits), floor).astype(np.float32)
    scales = np.where(scales > 0, scales, scales.max(initial=0) or 1.0).astype(np.float32)
    scaled = (weights / per_channel(scales, weights.ndim, axis)).astype(np.float32)
    return QuantizedWeights(rounding(scaled, axis, largest_of(bits)), scales, axis)
