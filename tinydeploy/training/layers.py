"""Turn nodes of a float Graph into Keras layers that compute what the integer network stores.

Values between layers are the real numbers that stored integers stand for. Rounding passes
gradients on as they are, clamping where it does not clamp (Krishnamoorthi 2018, section 3.2.3).
Scales are trained as well, through the same formulas: inside the range the gradient for a scale
is the rounding error, outside it the clamp (Esser et al., "Learned Step Size Quantization", ICLR
2020, sections 2.1 and 2.2; with zero points: Bhalgat et al., "LSQ+", 2020).
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tinydeploy.ir import DType, Quantization
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._window import activation_of
from tinydeploy.ops.checks import same_quantization
from tinydeploy.quantize.ranges import Range, quantization_of
from tinydeploy.quantize.rewrite import BIAS_LIMIT
from tinydeploy.quantize.weights import QuantizedWeights, largest_of, per_channel, to_nearest
from tinydeploy.training.operators import FUNCTIONS, LINEAR, Value, average_pool

# A trained scale is at least this share of the one it started from.
_LEAST = 0.05
PROFILE = PROFILES["litert"]
_REQUANTISED = {  # functions that are one product with a constant
    "ABS", "LEAKY_RELU", "MEAN", "MUL", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1",
}  # fmt: skip
_CLAMPS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def rounded(x: Value) -> Value:
    """Round halves away from zero, as requantising does; gradients pass unchanged."""
    return x + tf.stop_gradient(tf.sign(x) * tf.floor(tf.abs(x) + 0.5) - x)


def rounded_to_even(x: Value) -> Value:
    """Round halves to even, as constants are; gradients pass unchanged."""
    return x + tf.stop_gradient(tf.round(x) - x)


def _slowed(x: Value, elements: float) -> Value:
    """Return x with a gradient that is smaller by the root of the number of values it moves.

    Esser et al. 2020, section 2.2.
    """
    held = tf.stop_gradient(x)
    return held + (x - held) / math.sqrt(elements)


def _coarsely(steps: Value, ratio: Value) -> Value:
    """Round to what requantising by a ratio rounds to first.

    It multiplies by the ratio's mantissa, rounds, shifts by the exponent, and rounds again.
    """
    exponent = tf.floor(tf.math.log(ratio) / math.log(2)) + 1
    step = tf.stop_gradient(tf.minimum(tf.pow(2.0, exponent), 1.0))
    return rounded(steps / step) * step


class Stored(keras.layers.Layer):  # type: ignore[misc]
    """Know how tensors of one quantisation are stored; called, round real values to it.

    A range that the operator does not fix is trained: `factors` multiply its two ends.
    """

    def __init__(
        self, seen: Range, kind: DType, elements: int, fixed: Quantization | None, name: str
    ) -> None:
        super().__init__(name=name)
        self.kind, self.fixed = kind, fixed
        self.low, self.high = min(seen[0], 0.0), max(seen[1], 0.0)
        self.levels = kind.bounds[1] - kind.bounds[0]
        self.elements = elements * kind.bounds[1]
        if fixed is None and quantization_of(*seen, kind) == Quantization((1.0,), (0,)):
            self.fixed = Quantization((1.0,), (0,))
        if self.fixed is None:
            self.factors = self.add_weight(shape=(2,), initializer="ones", name="factors")
        self.built = True

    @property
    def range(self) -> Range:
        """Return the range as trained."""
        if self.fixed is not None:
            return self.low, self.high
        low, high = np.maximum(self.factors.value.numpy(), np.float32(_LEAST)).astype(np.float64)
        return self.low * float(low), self.high * float(high)

    def quantization(self) -> tuple[Value, Value]:
        """Return scale and zero point, by the formulas of ranges.quantization_of."""
        if self.fixed is not None:
            return tf.constant(self.fixed.scale), tf.constant(float(self.fixed.zero_point))
        factors = tf.maximum(_slowed(tf.convert_to_tensor(self.factors), self.elements), _LEAST)
        low, high = tf.unstack(tf.cast(factors, tf.float64) * [self.low, self.high])
        if self.kind is DType.INT16:
            scale = tf.maximum(-low, high) / self.kind.bounds[1]
            return tf.cast(scale, tf.float32), tf.constant(0.0)
        scale = tf.cast((high - low) / self.levels, tf.float32)
        smallest, largest = map(float, self.kind.bounds)
        zero = rounded_to_even(smallest - low / tf.cast(scale, tf.float64))
        return scale, tf.cast(tf.clip_by_value(zero, smallest, largest), tf.float32)

    def store(self, scaled: Value, activation: str | None = None, offset: Value = 0.0) -> Value:
        """Return the real values of numbers given in steps: rounded, clamped.

        `offset` is added while rounding, which decides where halves go.
        """
        scale, zero = self.quantization()
        low, high = self.kind.bounds[0] - zero, self.kind.bounds[1] - zero
        least, most = _CLAMPS.get(activation or "NONE", (None, None))
        if least is not None:
            low = tf.maximum(low, rounded(least / scale))
        if most is not None:
            high = tf.minimum(high, rounded(most / scale))
        return tf.clip_by_value(rounded(scaled + offset) - offset, low, high) * scale

    def call(self, values: Value) -> Value:
        return self.store(values / self.quantization()[0])


class Function(keras.layers.Layer):  # type: ignore[misc]
    """Compute a node without weights.

    While training, an output of the network whose quantisation is fixed (probabilities) is left
    unrounded: a probability rounded to 0 would say nothing about how to get better.
    """

    def __init__(
        self, node: Call, sources: list[Stored | None], target: Stored, last: bool, name: str
    ) -> None:
        super().__init__(name=name)
        self.node, self.target = node, target
        self.sources = [s for s in sources if s is not None]
        self.constants = {
            k: _constant(node, k, target.kind) for k, s in enumerate(sources) if s is None
        }
        self.unrounded = last and target.fixed is not None
        self.built = True

    def call(self, values: list[Value], training: bool = False) -> Value:
        op, (scale, zero) = self.node.node.op, self.target.quantization()
        activation = activation_of(self.node.attributes)
        if op == "AVERAGE_POOL_2D":  # of the stored integers, whose halves round away from 0
            steps = average_pool(self.node, [rounded(values[0] / scale)])
            return self.target.store(steps, activation, zero)
        given = iter(values)
        real = FUNCTIONS[op](
            self.node,
            [
                tf.constant(self.constants[k][0]) if k in self.constants else next(given)
                for k in range(len(self.node.node.inputs))
            ],
        )
        if training and self.unrounded:
            return real
        return self.target.store(self._rounded_first(op, real / scale, scale), activation)

    def _rounded_first(self, op: str, steps: Value, scale: Value) -> Value:
        if op not in _REQUANTISED or PROFILE.rounds_once(op):
            return steps
        ratio = 1 / scale
        for factor in (
            *(s.quantization()[0] for s in self.sources),
            *(c[1] for c in self.constants.values()),
        ):
            ratio = ratio * factor
        if op == "MEAN":  # its multiplier is that of a sum
            count = self.node.input().elements // self.node.output.elements
            ratio = ratio / 2.0 ** (count.bit_length() - 1)
        if op == "LEAKY_RELU":
            ratio = tf.where(steps < 0, ratio * self.node.attributes.alpha, ratio)
        return _coarsely(steps, ratio)


def _constant(node: Call, position: int, kind: DType) -> tuple[Any, float]:
    """Return an operand as it will be stored, in real numbers, and its scale (see rewrite.py)."""
    data = node.input(position).data
    assert data is not None
    if same_quantization in op_named(node.node.op).checks or data.dtype != np.float32:
        return data, 1.0
    q = quantization_of(float(data.min()), float(data.max()), kind)
    stored = quantize_float(data, q.scale, q.zero_point, kind.value)
    return dequantize(stored, q.scale, q.zero_point), q.scale


class Weighted(keras.layers.Layer):  # type: ignore[misc]
    """Compute a convolution or dense layer on stored integers, with trained weights and scales."""

    def __init__(
        self, node: Call, source: Stored, target: Stored, start: QuantizedWeights, bits: int,
        name: str,
    ) -> None:  # fmt: skip
        super().__init__(name=name)
        self.node, self.source, self.target, self.axis = node, source, target, start.axis
        self.largest, self.start = largest_of(bits), start.scales
        weights, bias = node.input(1).data, node.input(2).data if node.has_input(2) else None
        assert weights is not None
        self.kernel = self._weight("kernel", weights)
        self.bias = None if bias is None else self._weight("bias", bias.reshape(-1))
        self.factors = self._weight("factors", np.ones(len(start.scales), np.float32))
        self.moved = weights.size / len(start.scales) * self.largest
        self.built = True

    def _weight(self, name: str, values: Any) -> Any:
        return self.add_weight(
            shape=values.shape, initializer=lambda shape, dtype: tf.constant(values), name=name
        )

    def scales(self, step: Value) -> Value:
        """Return the scale of each channel, at which the bias fits its 32 bits."""
        factors = tf.maximum(_slowed(tf.convert_to_tensor(self.factors), self.moved), _LEAST)
        if self.bias is None:
            return factors * self.start
        floor = tf.abs(tf.stop_gradient(tf.convert_to_tensor(self.bias))) / (step * BIAS_LIMIT)
        return tf.maximum(factors * self.start, tf.stop_gradient(floor))

    def stored_weights(self) -> QuantizedWeights:
        """Return the weights as trained."""
        scales = self.scales(self.source.quantization()[0]).numpy()
        values = self.kernel.value.numpy() / per_channel(scales, self.kernel.ndim, self.axis)
        return QuantizedWeights(to_nearest(values, self.axis, self.largest), scales, self.axis)

    def call(self, values: Value) -> Value:
        op, step = self.node.node.op, self.source.quantization()[0]
        scales, out = self.scales(step), self.target.quantization()[0]
        shape = [1] * self.kernel.ndim
        shape[self.axis] = -1
        scaled = tf.convert_to_tensor(self.kernel) / tf.reshape(scales, shape)
        weights = tf.clip_by_value(rounded_to_even(scaled), -self.largest, self.largest)
        total = LINEAR[op](self.node, rounded_to_even(values / step), weights)
        if self.bias is not None:
            total = total + rounded_to_even(tf.convert_to_tensor(self.bias) / (step * scales))
        steps = total * (step * scales / out)
        if not PROFILE.rounds_once(op):
            steps = _coarsely(steps, step * scales / out)
        return self.target.store(steps, activation_of(self.node.attributes))
