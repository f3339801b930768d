"""Turn a sampled function and the edges of segments into a piecewise-linear table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.lut.functions import Floats, Function

Indices = NDArray[np.int64]
# Slopes and intercepts are multiples of this (GQA-LUT, 2024).
GRID = 2.0**-6
_SLOPES = range(-3, 5)  # grid steps from the best real slope, rounded down


@dataclass(frozen=True, slots=True)
class Piecewise:
    """Hold segments: segment k covers breakpoints[k - 1] <= x < breakpoints[k]."""

    breakpoints: Floats  # [n - 1], growing
    slopes: Floats  # [n]
    intercepts: Floats  # [n]

    def __call__(self, x: Floats) -> Floats:
        k = np.searchsorted(self.breakpoints, x, "right")
        result: Floats = self.slopes[k] * x + self.intercepts[k]
        return result


@dataclass(frozen=True, slots=True)
class Samples:
    """Hold a function at growing points, and sums that give the best line of any run at once."""

    x: Floats
    y: Floats
    sums: Floats  # [6, points + 1]: of 1, x, y, x^2, x y, y^2 before each point

    @classmethod
    def of(cls, function: Function, x: Floats) -> Samples:
        y = function.of(x)
        terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])
        return cls(x, y, np.concatenate([np.zeros((6, 1)), np.cumsum(terms, axis=1)], axis=1))

    def error(self, table: Piecewise, step: float = 0.0) -> float:
        """Return the mean squared error, with outputs rounded to multiples of a step if given."""
        out = table(self.x)
        if step:
            out = np.round(out / step) * step
        return float(np.mean((out - self.y) ** 2))


def grid(function: Function, step: float) -> Floats:
    """Return the multiples of a step from the low to the high end of the range."""
    first, last = round(function.low / step), round(function.high / step)
    points: Floats = np.arange(first, last + 1).astype(np.float64) * step
    return points


def fit(
    samples: Samples, start: Indices, stop: Indices, step: float = GRID
) -> tuple[Floats, Floats, Floats]:
    """Return slope, intercept and summed squared error of runs of points [start, stop).

    Least squares: of the slopes of the grid next to the best real one, each with its best
    intercept, the pair of least error. Far from x = 0 that is seldom the nearest slope. A run
    without points costs nothing.
    """
    n, x, y, xx, xy, yy = samples.sums[:, stop] - samples.sums[:, start]
    count = np.maximum(n, 1)
    spread = xx - x * x / count
    slope = np.where(spread > 1e-12, (xy - x * y / count) / np.maximum(spread, 1e-12), 0.0)
    best = (slope, slope, np.full_like(slope, np.inf))
    for offset in _SLOPES:
        a = (np.floor(slope / step) + offset) * step
        b = np.round((y - a * x) / count / step) * step
        cost = yy - 2 * a * xy - 2 * b * y + a * a * xx + 2 * a * b * x + n * b * b
        cost = np.maximum(cost, 0)
        less = cost < best[2]
        best = (
            np.where(less, a, best[0]), np.where(less, b, best[1]), np.where(less, cost, best[2]),
        )  # fmt: skip
    return best


def table_of(samples: Samples, edges: Indices, step: float = GRID) -> Piecewise:
    """Return the table whose segments are the runs between edges (0 and the number of points)."""
    slopes, intercepts, _ = fit(samples, edges[:-1], edges[1:], step)
    return Piecewise(samples.x[edges[1:-1]], slopes, intercepts)


def uniform(samples: Samples, segments: int, step: float = GRID) -> Piecewise:
    """Return the table of segments of equal width."""
    edges = np.linspace(0, len(samples.x), segments + 1).round().astype(np.int64)
    return table_of(samples, edges, step)


def optimal(samples: Samples, segments: int, step: float = GRID, most: int = 1025) -> Piecewise:
    """Return the table of least squared error, by a dynamic program over the edges.

    best[k][j] = min over i of best[k - 1][i] + cost(i, j). With more than `most` points, segments
    begin at every so-manieth one only.
    """
    count = len(samples.x)
    stride = -(-count // (most - 1))
    places = np.append(np.arange(0, count, stride), count)
    start, stop = np.meshgrid(places, places, indexing="ij")
    _, _, cost = fit(samples, start, np.maximum(start, stop), step)
    cost[stop <= start] = np.inf
    best, chosen = cost[0], []
    for _ in range(segments - 1):
        total = best[:, None] + cost
        chosen.append(total.argmin(axis=0))
        best = total.min(axis=0)
    edges = [len(places) - 1]
    for back in reversed(chosen):
        edges.append(int(back[edges[-1]]))
    return table_of(samples, places[np.array([0, *reversed(edges)])], step)
