"""Turn the range of a network's inputs into made-up samples, for want of real ones.

Batch-normalisation statistics would do better (Nagel et al., ICCV 2019, section 4.3), but a file
in which normalisation is folded into weights and biases no longer holds them. What is made up
has the spectrum of natural images, whose amplitudes fall as 1/f (Field, "Relations between the
statistics of natural images and the response properties of cortical cells", 1987), along all axes
but the last, and covers a random part of the range.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph

Array = NDArray[Any]
Range = tuple[float, float]

COUNT = 32
ASSUMED: Range = (-1.0, 1.0)


def made_up_samples(graph: Graph, declared: Range | None = None) -> list[list[Array]]:
    """Return COUNT samples, the same at every call: float32 in the shapes of the inputs.

    Values lie in `declared`, else in ASSUMED. Raises UsageError for a range that is none.
    """
    low, high = declared or ASSUMED
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"{low:g} to {high:g} is no range of inputs", "it must be finite, and rise"
        )
    random = np.random.default_rng(0)
    return [
        [_one(graph.tensors[i].shape, low, high, random) for i in graph.inputs]
        for _ in range(COUNT)
    ]


def warning(declared: Range | None) -> str:
    """Return what the user must know of a model quantised on made-up samples."""
    low, high = declared or ASSUMED
    range_ = f"inputs from {low:g} to {high:g}"
    return (
        f"no samples: ranges come from random {range_}"
        + ("" if declared else ", an assumption")
        + "; give real ones for figures that can be relied on"
    )


def _one(shape: tuple[int, ...], low: float, high: float, random: np.random.Generator) -> Array:
    values = random.normal(size=shape)
    frequency = np.zeros(())
    for axis in range(1, len(shape) - 1):
        others = [1] * len(shape)
        others[axis] = shape[axis]
        # In periods per image, so that 1 is the slowest there is.
        periods = np.abs(np.fft.fftfreq(shape[axis])) * shape[axis]
        frequency = frequency + (periods**2).reshape(others)
    if frequency.ndim:
        axes = tuple(range(1, len(shape) - 1))
        spectrum = np.fft.fftn(values, axes=axes) / np.sqrt(np.maximum(frequency, 1.0))
        values = np.fft.ifftn(spectrum, axes=axes).real
    values = values - values.min()
    values = values / (values.max() or 1.0)
    ends = np.sort(random.uniform(low, high, 2)) if random.random() < 0.5 else (low, high)
    return np.asarray(ends[0] + (ends[1] - ends[0]) * values, np.float32)
