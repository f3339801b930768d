"""Turn a float Graph and samples into how much each tensor's bits alone disturb the outputs.

Only one tensor is changed at a time, in the float network: its weights become those that would be
stored, or its values those that its levels can hold. Errors of different tensors are nearly
uncorrelated, so that their powers at the output add up; what a whole choice of bits costs is
measured afterwards, in integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.execute import run_floats
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.narrow import can_narrow, levels_of
from tinydeploy.quantize.quantize import Studied
from tinydeploy.quantize.rounding import store_weights
from tinydeploy.quantize.weights import QuantizedWeights

Array = NDArray[Any]
# A measure of power over all outputs settles soon; each sample is run once per tensor and width.
MOST_SAMPLES = 8
WEIGHT_BITS = (8, 4, 2)
NARROW_BITS = (4, 2)
# Functions that flatten where a network is sure of itself: noise is measured before them.
_SQUASHING = ("SOFTMAX", "LOGISTIC")


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Hold the power of the error at the output over the output's own, per change.

    weights: by position of the node and bits. narrow: by tensor and bits.
    """

    weights: Mapping[tuple[int, int], float] = field(default_factory=dict)
    narrow: Mapping[tuple[int, int], float] = field(default_factory=dict)


class Replay:
    """Run a float network again and again from where a tensor changed."""

    def __init__(self, graph: Graph, samples: Sequence[Sequence[Array]]) -> None:
        self.graph = graph
        self.values = [run_floats(graph, sample) for sample in spread(samples, MOST_SAMPLES)]
        makers = {n.outputs[0]: n for n in graph.nodes}
        self.watched = [
            o if makers[o].op not in _SQUASHING else makers[o].inputs[0] or 0 for o in graph.outputs
        ]
        self.power = sum(
            float((v[i].astype(np.float64) ** 2).sum()) for v in self.values for i in self.watched
        )

    def noise(self, index: int, changed: Sequence[Array]) -> float:
        """Return the power of the outputs' errors over the outputs', a tensor being as given.

        `changed` has its values per sample.
        """
        total = 0.0
        for base, value in zip(self.values, changed, strict=True):
            now = {index: value}
            for node in self.graph.nodes:
                if not any(i in now for i in node.inputs):
                    continue
                reference = op_named(node.op).float_reference
                assert reference is not None
                empty = np.zeros(0, np.float32)
                given = [empty if i is None else now.get(i, base[i]) for i in node.inputs]
                (now[node.outputs[0]],) = reference(Call(self.graph, node), given)
            for i in self.watched:
                if i in now:
                    total += float(((now[i].astype(np.float64) - base[i]) ** 2).sum())
        return total / max(self.power, 1e-300)


def spread(samples: Sequence[Sequence[Array]], most: int) -> list[Sequence[Array]]:
    """Return at most so many samples, evenly over those given."""
    count = min(len(samples), most)
    return [samples[k * len(samples) // count] for k in range(count)]


def stored_weights(s: Studied) -> dict[int, dict[int, QuantizedWeights]]:
    """Return the weights of every layer as they would be stored, by bits and position."""
    return {
        bits: store_weights(
            s.floats, s.stored, lambda p, b=bits: b, s.settings.rounding,  # type: ignore[misc]
            s.settings.codebooks, s.moments,
        )
        for bits in WEIGHT_BITS
    }  # fmt: skip


def measure_sensitivity(s: Studied, progress: Progress = quiet) -> Sensitivity:
    """Return what each layer's weights at 8, 4 and 2 bits cost, and each tensor at 4 and 2.

    The tensors are those that can be kept narrow between layers.
    """
    replay = Replay(s.floats, s.samples)
    stored, candidates = stored_weights(s), can_narrow(s.floats)
    total = len(WEIGHT_BITS) * len(stored[8]) + len(NARROW_BITS) * len(candidates)
    weights, narrow = {}, {}
    for bits, layers in stored.items():
        for position, own in layers.items():
            index = s.floats.nodes[position].inputs[1]
            assert index is not None
            weights[position, bits] = replay.noise(index, [own.real()] * len(replay.values))
            progress(len(weights), total)
    for tensor in candidates:
        quantization = s.stored.quantization[tensor]
        for bits in NARROW_BITS:
            levels = levels_of(s.statistics[tensor], quantization, bits)
            real = (levels - quantization.zero_point) * quantization.scale
            changed = [_nearest(real, v[tensor]) for v in replay.values]
            narrow[tensor, bits] = replay.noise(tensor, changed)
            progress(len(weights) + len(narrow), total)
    return Sensitivity(weights, narrow)


def _nearest(levels: Array, values: Array) -> Array:
    """Return the nearest of ascending levels for each value."""
    found = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    return found.astype(np.float32)
