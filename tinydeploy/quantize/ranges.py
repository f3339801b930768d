"""Turn what a tensor's values look like into the range that its integers span."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinydeploy.ir import DType, Quantization
from tinydeploy.quantize.calibrate import Statistics

Range = tuple[float, float]  # smallest and largest real number
Method = Callable[[Statistics, int], Range]

_OUTSIDE = 1e-4  # share of values that a percentile range leaves out, half at each end
_CANDIDATES = 100


def min_max(stats: Statistics, bits: int) -> Range:
    """Span all values seen."""
    return stats.low, stats.high


def percentile(stats: Statistics, bits: int) -> Range:
    """Leave out the outermost 0.005 % at each end, counted on the histogram."""
    share = np.cumsum(stats.counts) / max(int(stats.counts.sum()), 1)
    first = int(np.searchsorted(share, _OUTSIDE / 2, side="right"))
    last = int(np.searchsorted(share, 1 - _OUTSIDE / 2))
    width = (stats.high - stats.low) / len(stats.counts)
    low = stats.low + width * min(first, len(share) - 1)
    return low, stats.low + width * (min(last, len(share) - 1) + 1)


def mean_squared_error(stats: Statistics, bits: int) -> Range:
    """Shrink the range to where rounding and clipping together err least, on the histogram."""
    centres, weights = stats.centres, stats.counts.astype(np.float64)
    best, least = (stats.low, stats.high), np.inf
    for k in range(_CANDIDATES):
        share = 1 - k / _CANDIDATES
        low, high = min(stats.low, 0.0) * share, max(stats.high, 0.0) * share
        step = (high - low) / (2**bits - 1)
        if step <= 0:
            break
        restored = np.clip(np.rint((centres - low) / step) * step + low, low, high)
        error = float((weights * (restored - centres) ** 2).sum())
        if error < least:
            best, least = (low, high), error
    return best


METHODS: dict[str, Method] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mean_squared_error,
}


def quantization_of(low: float, high: float, dtype: DType) -> Quantization:
    """Return scale and zero point for a range, widened so that it holds zero exactly.

    int8 is asymmetric, int16 symmetric (TensorFlow Lite 8-bit quantization specification). A
    range of nothing but zero gets scale 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if dtype is DType.INT16:
        scale = float(np.float32(max(-low, high) / 32767))
        return Quantization((scale or 1.0,), (0,))
    smallest, largest = dtype.bounds
    scale = float(np.float32((high - low) / (largest - smallest)))
    if scale < 2.0**-60:
        return Quantization((1.0,), (0,))
    zero_point = int(np.clip(np.rint(smallest - low / scale), smallest, largest))
    return Quantization((scale,), (zero_point,))
