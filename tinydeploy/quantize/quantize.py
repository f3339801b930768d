"""Turn a float Graph and samples into an integer Graph: the only place that knows the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tinydeploy.importers import tdm
from tinydeploy.ir import DType, Graph, Node
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.passes.prune import remove_unused
from tinydeploy.quantize.bias_correction import correct_biases
from tinydeploy.quantize.calibrate import Progress, Statistics, calibrate, quiet
from tinydeploy.quantize.codebook import quantize_to_codebook, squared_error
from tinydeploy.quantize.equalize import equalize
from tinydeploy.quantize.normal import WEIGHTS_AXIS, normalise
from tinydeploy.quantize.ranges import METHODS
from tinydeploy.quantize.rewrite import bias_floor, store_activations, to_integer
from tinydeploy.quantize.squant import squant
from tinydeploy.quantize.weights import QuantizedWeights, quantize_weights, to_nearest

Array = NDArray[Any]
Samples = Sequence[Sequence[Array]]

ROUNDINGS = {"nearest": to_nearest, "squant": squant}


@dataclass(frozen=True, slots=True)
class Settings:
    """Say how to quantise.

    activations: int8 or int16.
    weight_bits: of all weights; `node_bits` has exceptions by position of the node.
    ranges: a name of ranges.METHODS.
    rounding: "nearest" or "squant".
    equalize, correct_bias: whether to use those methods.
    codebooks: whether weights of 4 bits may be indices into 16 values of their tensor's own.
    """

    activations: DType = DType.INT8
    weight_bits: int = 8
    node_bits: Mapping[int, int] = field(default_factory=dict)
    ranges: str = "mse"
    rounding: str = "nearest"
    equalize: bool = False
    correct_bias: bool = False
    codebooks: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Hold the integer graph next to the float one in normal form; tensors have equal indices."""

    floats: Graph
    integers: Graph
    statistics: Mapping[int, Statistics]
    settings: Settings
    warnings: tuple[str, ...] = ()

    def weighted(self, position: int) -> bool:
        """Tell whether a node has weights."""
        return self.floats.nodes[position].op in WEIGHTS_AXIS

    def bits_of(self, position: int) -> int:
        """Return how many bits a node's weights have."""
        return self.settings.node_bits.get(position, self.settings.weight_bits)

    @property
    def model(self) -> Graph:
        """Return the integer graph alone, without what only the float one needs."""
        return remove_unused(self.integers, PROFILES["litert"])

    def archive(self, about: dict[str, Any] | None = None) -> bytes:
        """Return the integer graph as a .tdm file, with what is to be remembered about it."""
        return tdm.to_bytes(self.model, about)


def quantize(
    graph: Graph, samples: Samples, settings: Settings = Settings(), progress: Progress = quiet
) -> Quantized:
    """Return a float graph in integers; `samples` are float32 arrays in the shapes of its inputs.

    Raises ModelError for what cannot be quantised, UsageError for samples that cannot be used.
    """
    floats = normalise(graph)
    if settings.equalize:
        floats = equalize(floats)
    statistics = calibrate(floats, samples, progress)
    bits = 16 if settings.activations is DType.INT16 else 8
    method = METHODS[settings.ranges]
    ranges = {i: method(s, bits) for i, s in statistics.items()}
    stored = store_activations(floats, ranges, settings.activations)
    weights = {
        position: _weights(floats, node, settings, position, bias_floor(floats, node, stored))
        for position, node in enumerate(floats.nodes)
        if node.op in WEIGHTS_AXIS and floats.tensor(node.inputs[1]).constant
    }
    integers = to_integer(floats, stored, weights)
    if settings.correct_bias:
        integers = correct_biases(floats, integers, samples, progress)
    return Quantized(floats, integers, statistics, settings)


def _weights(
    floats: Graph, node: Node, settings: Settings, position: int, floor: Array | float
) -> QuantizedWeights:
    """Return the stored weights of a node, in a codebook where that is nearer than 4 bits."""
    data, axis = floats.tensor(node.inputs[1]).data, WEIGHTS_AXIS[node.op]
    assert data is not None
    bits = settings.node_bits.get(position, settings.weight_bits)
    uniform = quantize_weights(data, axis, bits, ROUNDINGS[settings.rounding], floor)
    if bits != 4 or not settings.codebooks:
        return uniform
    book = quantize_to_codebook(data, axis, floor)
    nearest = quantize_weights(data, axis, bits, floor=floor)
    return book if squared_error(data, book) < squared_error(data, nearest) else uniform
