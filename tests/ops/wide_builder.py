"""Turn descriptions of int8 models into models with int16 activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from builder import Builder, StoredTensor

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
PROBABILITIES = ("LOGISTIC", "SOFTMAX")
STEPS = 256  # of int16 per step of int8
SMALLEST = 2.0**-26  # scale of a LOGISTIC or SOFTMAX


class WideBuilder(Builder):
    """Write every int8 activation as int16 of the same range, and biases as int64."""

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        random = np.random.default_rng(len(self.tensors) + sum(self.tensors[inputs[0]].shape))
        weights = {o.inputs[1] for o in self.operators if o.name in WEIGHTED}
        biases = {o.inputs[2] for o in self.operators if o.name in WEIGHTED and o.inputs[2:]}
        narrow = set()
        if self.operators[-1].name == "QUANTIZE" and random.random() < 0.6:
            narrow = {int(random.choice([*inputs, *outputs]))}
        for index, tensor in enumerate(self.tensors):
            if index in narrow:
                continue
            if index in biases and tensor.data is not None:
                self.tensors[index] = _bias(tensor, random, self._limit(index))
            elif tensor.dtype == "int8" and index not in weights:
                self.tensors[index] = _widened(tensor, random)
        for k, operator in enumerate(self.operators):
            if operator.name in ("ADD", "SUB"):
                options = {**operator.options, "PotScaleInt16": False}
                self.operators[k] = replace(operator, options=options)
            if operator.name in PROBABILITIES:
                out = operator.outputs[0]
                self.tensors[out] = replace(self.tensors[out], scales=(1 / 32768,))
                source, least = self.tensors[operator.inputs[0]], SMALLEST
                least /= min(1.0, operator.options.get("Beta", 1.0)) / 2
                scales = tuple(max(s, least) for s in source.scales)
                self.tensors[operator.inputs[0]] = replace(source, scales=scales)
        return super().build(inputs, outputs)

    def _limit(self, bias: int) -> float:
        """Return the largest real bias for results of 30 bits: LiteRT leaves more undefined."""
        operator = next(o for o in self.operators if bias in o.inputs)
        return 2.0**30 * self.tensors[operator.outputs[0]].scales[0]


def _bias(tensor: StoredTensor, random: np.random.Generator, limit: float) -> StoredTensor:
    assert tensor.data is not None
    data = tensor.data.astype(np.int64) * STEPS
    if random.random() < 0.3:
        data *= 1 << 12
    scales = tuple(float(np.float32(s) / np.float32(STEPS)) for s in tensor.scales)
    most = int(limit / max(tensor.scales))
    data = data.clip(-most, most)
    return replace(tensor, dtype="int64", data=data, scales=scales)


def _widened(tensor: StoredTensor, random: np.random.Generator) -> StoredTensor:
    scales = tuple(float(np.float32(s) / np.float32(STEPS)) for s in tensor.scales)
    zeros = tuple(0 for _ in tensor.zero_points)
    data = tensor.data
    if data is not None:
        low = random.integers(0, STEPS, data.shape)
        data = (data.astype(np.int64) * STEPS + low).astype(np.int16)
    return replace(tensor, dtype="int16", scales=scales, zero_points=zeros, data=data)
