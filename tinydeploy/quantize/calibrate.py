"""Turn a float Graph and samples into what its values look like: ranges, histograms, means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.ir import Graph
from tinydeploy.ops.execute import run_floats

Array = NDArray[Any]
Progress = Callable[[int, int], None]

BINS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Describe the values that one tensor took over all samples.

    `counts` is a histogram of BINS equal bins from `low` to `high`, both real numbers; `means`
    are per index of the last axis.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    means: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.float64]:
        """Return the middle of each bin."""
        width = (self.high - self.low) / BINS
        return np.asarray(self.low + width * (np.arange(BINS) + 0.5), np.float64)


def quiet(done: int, total: int) -> None:
    """Show no progress."""


def activations(graph: Graph) -> list[int]:
    """Return the tensors that are computed at run time, inputs first, in order of execution."""
    return [*graph.inputs, *(o for n in graph.nodes for o in n.outputs)]


def calibrate(
    graph: Graph, samples: Sequence[Sequence[Array]], progress: Progress = quiet
) -> dict[int, Statistics]:
    """Run every sample through a float graph and describe every tensor, by index.

    `samples` are float32 arrays of the shapes of `graph.inputs`. Memory is that of one sample:
    the histogram widens as larger values appear (its bins merge by whole factors). Raises
    UsageError without samples or for an input that never varies, ModelError for results that are
    not finite.
    """
    if not samples:
        raise UsageError("there are no samples to calibrate with")
    gathered = {i: _Gathered() for i in activations(graph)}
    for done, sample in enumerate(samples):
        values = run_floats(graph, sample)
        for i, own in gathered.items():
            if not own.add(values[i]):
                raise ModelError(
                    "a layer computes NaN or infinity on the calibration data",
                    f"sample {done}",
                    "check the scale of the data: is it what the model was trained on?",
                    graph.tensors[i].name,
                )
        progress(done + 1, len(samples))
    for i in graph.inputs:
        if gathered[i].low == gathered[i].high:
            raise UsageError(
                "the calibration data never varies",
                f"every value of input '{graph.tensors[i].name}' is {gathered[i].low:.6g}",
                "give samples such as the device will see",
            )
    return {i: own.statistics() for i, own in gathered.items()}


class _Gathered:
    """Collect the values of one tensor in a histogram around zero whose bins widen by doubling."""

    __slots__ = ("counts", "high", "low", "samples", "sums", "width")

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.width = 0.0  # of a bin; the 4 * BINS bins are centred on zero
        self.counts = np.zeros(4 * BINS, np.int64)
        self.sums: Array | float = 0.0
        self.samples = 0

    def add(self, values: Array) -> bool:
        """Count the values of one sample; False if some are not finite."""
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low + high):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        reach = max(abs(low), abs(high))
        half = 2 * BINS
        if self.width == 0.0:
            self.width = max(reach, 1e-30) / half
        while reach > self.width * half:
            self._widen()
        index = np.minimum(np.floor(values / self.width).astype(np.int64) + half, 2 * half - 1)
        self.counts += np.bincount(index.reshape(-1), minlength=2 * half)
        means = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
        self.sums = self.sums + means.mean(axis=0, dtype=np.float64)
        self.samples += 1
        return True

    def _widen(self) -> None:
        """Merge pairs of bins, those left and right of zero apart."""
        pairs = self.counts.reshape(-1, 2).sum(axis=1)
        self.counts = np.concatenate([np.zeros(BINS, np.int64), pairs, np.zeros(BINS, np.int64)])
        self.width *= 2

    def statistics(self) -> Statistics:
        """Return the values counted, spread again over BINS bins between the extremes."""
        edges = self.width * (np.arange(4 * BINS + 1) - 2 * BINS)
        total = np.concatenate([[0], np.cumsum(self.counts)])
        wanted = np.linspace(self.low, self.high, BINS + 1)
        running = np.rint(np.interp(wanted, edges, total)).astype(np.int64)
        running[0], running[-1] = 0, total[-1]
        return Statistics(
            self.low,
            self.high,
            np.diff(running),
            np.asarray(self.sums / self.samples, np.float64),
        )
