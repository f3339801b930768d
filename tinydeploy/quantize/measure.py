"""Turn a float Graph, its integer form and samples into what quantisation cost each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.execute import run_all, run_floats
from tinydeploy.quantize.calibrate import Progress, quiet

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Loss:
    """Say what quantisation has cost up to one tensor: `sqnr` is the ratio of the power of its
    values to that of their errors, in decibels.
    """

    tensor: int
    name: str
    op: str
    sqnr: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold the losses of every node in order, those of the outputs, and how often the first
    output's largest value is at the same place.

    The first output of each sample is kept: as the float network gives it, and as the real
    numbers that the integer one's output stands for.
    """

    nodes: tuple[Loss, ...]
    outputs: tuple[float, ...]
    agreement: float
    inputs: tuple[Array, ...]
    floats: tuple[Array, ...]
    integers: tuple[Array, ...]

    @property
    def samples(self) -> int:
        return len(self.inputs)


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); infinite for no noise, 0 for nothing at all."""
    if noise == 0:
        return np.inf
    return float(10 * np.log10(max(signal, 1e-300) / noise))


def to_integers(graph: Graph, sample: Sequence[Array]) -> list[Array]:
    """Return real inputs as the stored integers of an integer graph."""
    tensors = [graph.tensors[i] for i in graph.inputs]
    return [
        quantize_float(x, t.scale, t.zero_point, t.dtype.value)
        for x, t in zip(sample, tensors, strict=True)
    ]


def to_real(graph: Graph, index: int, stored: Array) -> Array:
    """Return the real numbers of a tensor of an integer graph."""
    tensor = graph.tensors[index]
    return dequantize(stored, tensor.scale, tensor.zero_point)


def measure(
    floats: Graph,
    integers: Graph,
    samples: Sequence[Sequence[Array]],
    profile: IntegerProfile,
    progress: Progress = quiet,
) -> Measured:
    """Run samples through both graphs; a tensor has the same index in both."""
    watched = [n.outputs[0] for n in floats.nodes]
    signal, noise = np.zeros(len(floats.tensors)), np.zeros(len(floats.tensors))
    agreed, kept = 0, []
    for done, sample in enumerate(samples):
        exact = run_floats(floats, sample)
        stored = run_all(integers, to_integers(integers, sample), profile)
        for i in watched:
            real = to_real(integers, i, stored[i]).reshape(exact[i].shape).astype(np.float64)
            signal[i] += float((exact[i].astype(np.float64) ** 2).sum())
            noise[i] += float(((real - exact[i]) ** 2).sum())
        first = exact[floats.outputs[0]]
        own = to_real(integers, integers.outputs[0], stored[integers.outputs[0]])
        agreed += int(first.argmax() == own.argmax())
        kept.append((sample[0], first, own))
        progress(done + 1, len(samples))
    losses = {i: decibels(signal[i], noise[i]) for i in watched}
    return Measured(
        tuple(Loss(n.outputs[0], n.name, n.op, losses[n.outputs[0]]) for n in floats.nodes),
        tuple(losses[o] for o in floats.outputs),
        agreed / max(len(samples), 1),
        *(tuple(column) for column in zip(*kept, strict=True)),
    )
