"""Turn float weights into int8 values of at most 16 kinds, which four bits each can index.

A field of 4 bits need not mean an integer from -8 to 7. As an index into 16 int8 values, a
codebook, it spans types whose values lie closer where weights are dense: powers of two, flint
(Guo et al., "ANT: Exploiting Adaptive Numerical Data Type for Low-bit Deep Neural Network
Quantization", MICRO 2022), or the centroids that k-means (Lloyd) finds for a tensor. The weights
of the integer graph are the values looked up, so operators compute nothing new; kernels that keep
weights packed store the indices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydeploy.quantize.weights import QuantizedWeights

Reals = NDArray[np.float64]

# Magnitudes of ANT's signed 4-bit types, whole and times what makes them fill int8. Its flint has
# a sign and three bits, in which a leading one's place gives the exponent and what follows the
# mantissa: 1/4, 1/2, 3/4, 1, 3/2, 2, 4.
_POWERS = (1, 2, 4, 8, 16, 32, 64)
_FLINT = (7, 14, 21, 28, 42, 56, 112)
_SHARES = np.linspace(1.0, 0.4, 25)  # of the scale that spans a channel's largest weight
_LARGEST = 127
_ENTRIES = 16
_BINS = 4096
_LLOYD = 100
_REFINEMENTS = 4


def grid_of(magnitudes: tuple[int, ...]) -> Reals:
    """Return a symmetric codebook, ascending, with zero."""
    return np.array([*(-m for m in reversed(magnitudes)), 0, *magnitudes], np.float64)


def nearest(grid: Reals, values: Reals) -> Reals:
    """Return the nearest entry of an ascending codebook for each value."""
    found: Reals = grid[np.searchsorted((grid[1:] + grid[:-1]) / 2, values)]
    return found


def quantize_to_codebook(
    weights: NDArray[np.float32], axis: int, floor: NDArray[np.float64] | float = 0.0
) -> QuantizedWeights:
    """Return the weights in the codebook of least squared error: one per tensor.

    Scales are per channel along `axis`, at least `floor`. Tried are powers of two, flint and the
    tensor's own centroids; one that is as good as another loses to it.
    """
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    widest = np.abs(rows).max(axis=1, initial=0.0)
    least = np.maximum(np.broadcast_to(floor, widest.shape), (widest.max(initial=0) or 1) * 1e-6)
    tried = [
        _best_scales(rows, grid_of(_POWERS), least),
        _best_scales(rows, grid_of(_FLINT), least),
        _centroids(rows, least),
    ]
    errors = [((q * s[:, None] - rows) ** 2).sum() for q, s in tried]
    values, scales = tried[int(np.argmin(errors))]
    first = np.moveaxis(weights, axis, 0).shape
    return QuantizedWeights(
        np.moveaxis(values.reshape(first), 0, axis).astype(np.int8),
        scales.astype(np.float32),
        axis,
    )


def _best_scales(rows: Reals, grid: Reals, least: Reals) -> tuple[Reals, Reals]:
    """Return values and scales per row for a given codebook."""
    widest = np.abs(rows).max(axis=1, initial=0.0) / grid[-1]
    best, values, lowest = least, np.zeros_like(rows), np.full(len(rows), np.inf)
    for share in _SHARES:
        # Scales end as float32, so that is what they are compared as.
        scales = np.maximum(widest * share, least).astype(np.float32).astype(np.float64)
        tried = nearest(grid, rows / scales[:, None])
        error = ((tried * scales[:, None] - rows) ** 2).sum(axis=1)
        better = error < lowest
        values = np.where(better[:, None], tried, values)
        best, lowest = np.where(better, scales, best), np.where(better, error, lowest)
    return values, best


def _centroids(rows: Reals, least: Reals) -> tuple[Reals, Reals]:
    """Return values and scales per row for a codebook of the weights' own.

    Codebook and scales are found in turns: each is the best for the other in squared error.
    """
    scales = np.maximum(np.abs(rows).max(axis=1, initial=0.0) / _LARGEST, least)
    values = np.zeros_like(rows)
    for _ in range(_REFINEMENTS):
        grid = _lloyd(rows / scales[:, None], scales**2)
        values = nearest(grid, rows / scales[:, None])
        power = (values**2).sum(axis=1)
        fitted = (values * rows).sum(axis=1) / np.where(power > 0, power, 1)
        scales = np.where((power > 0) & (fitted > 0), fitted, scales)
        scales = np.maximum(scales, least).astype(np.float32).astype(np.float64)
    return nearest(grid, rows / scales[:, None]), scales


def _lloyd(scaled: Reals, importance: Reals) -> Reals:
    """Return at most 16 int8 centroids, ascending, one of them 0; `importance` is per row.

    Lloyd's iteration on a histogram: bins of 1/16. It starts where quantisers of many levels end,
    with a density of levels as the cube root of that of the values (Panter and Dite 1951).
    """
    edges = np.linspace(-_LARGEST - 1, _LARGEST + 1, _BINS + 1)
    inside = np.clip(scaled, -_LARGEST, _LARGEST).reshape(-1)
    mass = np.histogram(inside, edges, weights=np.repeat(importance, scaled.shape[1]))[0]
    if not mass.sum() > 0:
        return np.zeros(1)
    middles = (edges[1:] + edges[:-1]) / 2
    smooth = np.convolve(mass, np.ones(65) / 65, "same")
    spread = np.cumsum(np.cbrt(smooth))
    starts = (np.arange(_ENTRIES) + 0.5) / _ENTRIES * spread[-1]
    centroids: Reals = middles[np.minimum(np.searchsorted(spread, starts), _BINS - 1)]
    masses = np.concatenate([[0.0], np.cumsum(mass)])
    moments = np.concatenate([[0.0], np.cumsum(mass * middles)])
    for _ in range(_LLOYD):
        borders = np.searchsorted(middles, (centroids[1:] + centroids[:-1]) / 2)
        cuts = np.concatenate([[0], borders, [_BINS]])
        held = np.diff(masses[cuts])
        moved = np.where(held > 0, np.diff(moments[cuts]) / np.where(held > 0, held, 1), centroids)
        if np.abs(moved - centroids).max() < 1e-3:
            break
        centroids = moved
    # A weight of exactly zero stays so: what has none but zeros can be left out of a network.
    centroids[np.abs(centroids).argmin()] = 0
    return np.unique(np.clip(np.rint(centroids), -_LARGEST, _LARGEST))
