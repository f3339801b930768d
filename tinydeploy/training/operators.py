"""Turn nodes of a float Graph into TensorFlow operations on batches, equal to `float_reference`.

A Graph describes one sample: the first axis of its tensors has size 1 and is the batch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tinydeploy.ops import Call, op_named
from tinydeploy.ops import _pool as pool
from tinydeploy.ops import _window as window

Value = Any  # a TensorFlow tensor
Linear = Callable[[Call, Value, Value], Value]
Function = Callable[[Call, list[Value]], Value]


def _padded(x: Value, g: window.Geometry, fill: float = 0.0) -> Value:
    """Return images with their border, so that the window only moves inside them."""
    reach_h = (g.kernel_h - 1) * g.dilation_h + 1
    reach_w = (g.kernel_w - 1) * g.dilation_w + 1
    below = max(0, (g.out_h - 1) * g.stride_h + reach_h - g.in_h - g.pad_top)
    right = max(0, (g.out_w - 1) * g.stride_w + reach_w - g.in_w - g.pad_left)
    border = [[0, 0], [g.pad_top, below], [g.pad_left, right], [0, 0]]
    return tf.pad(x, border, constant_values=fill)


def _strided(g: window.Geometry) -> tuple[int, int]:
    """Return the stride that TensorFlow takes itself; it has none for dilated windows."""
    dilated = g.dilation_h > 1 or g.dilation_w > 1
    return (1, 1) if dilated or g.stride_h != g.stride_w else (g.stride_h, g.stride_w)


def _taken(x: Value, g: window.Geometry) -> Value:
    """Return the places that the stride visits, where TensorFlow has computed all."""
    if _strided(g) == (g.stride_h, g.stride_w):
        return x[:, : g.out_h, : g.out_w]
    return x[:, :: g.stride_h, :: g.stride_w][:, : g.out_h, : g.out_w]


def convolution(call: Call, x: Value, filters: Value) -> Value:
    """Convolve [n, H, W, C] with filters [out, h, w, C / groups]; a group at a time."""
    g = window.convolution(call)
    groups = call.input().shape[3] // call.input(1).shape[3]
    parts = [
        tf.nn.convolution(
            part,
            tf.transpose(own, (1, 2, 3, 0)),
            strides=_strided(g),
            padding="VALID",
            dilations=(g.dilation_h, g.dilation_w),
        )
        for part, own in zip(
            tf.split(_padded(x, g), groups, axis=3), tf.split(filters, groups, axis=0), strict=True
        )
    ]
    return _taken(tf.concat(parts, axis=3) if groups > 1 else parts[0], g)


def depthwise(call: Call, x: Value, filters: Value) -> Value:
    """Filter each channel of [n, H, W, C] by its own of [1, h, w, C * multiplier]."""
    g, channels = window.convolution(call), call.input().shape[3]
    out = tf.nn.depthwise_conv2d(
        _padded(x, g),
        tf.reshape(filters, (g.kernel_h, g.kernel_w, channels, -1)),
        strides=(1, *_strided(g), 1),
        padding="VALID",
        dilations=(g.dilation_h, g.dilation_w),
    )
    return _taken(out, g)


def dense(call: Call, x: Value, weights: Value) -> Value:
    """Multiply vectors by a matrix [out, in]."""
    out = tf.matmul(tf.reshape(x, (-1, call.input(1).shape[1])), weights, transpose_b=True)
    return tf.reshape(out, (-1, *call.output.shape[1:]))


def average_pool(call: Call, values: list[Value]) -> Value:
    """Average the places of each window that lie inside the image."""
    g = pool.geometry(call)
    ones = np.ones((1, g.in_h, g.in_w, 1), np.float32)
    count = np.maximum(window.patches(ones, g, 0).sum(axis=(2, 3)), 1)
    every = np.ones((g.kernel_h, g.kernel_w, call.input().shape[3], 1), np.float32)
    total = tf.nn.depthwise_conv2d(_padded(values[0], g), every, (1, *_strided(g), 1), "VALID")
    return _taken(total, g) / count[None]


def _max_pool(call: Call, values: list[Value]) -> Value:
    g = pool.geometry(call)
    x = _padded(values[0], g, values[0].dtype.min)
    window_size, stride = (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w)
    return tf.nn.max_pool2d(x, window_size, stride, "VALID")[:, : g.out_h, : g.out_w]


def _mean(call: Call, values: list[Value]) -> Value:
    axes = [a for a in call.attributes.axes if a > 0]
    return tf.reshape(tf.reduce_mean(values[0], axes), (-1, *call.output.shape[1:]))


def _moved(call: Call, values: list[Value]) -> Value:
    """Take each element from where the reference takes it."""
    shape = call.input().shape
    numbers = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    reference = op_named(call.node.op).float_reference
    assert reference is not None
    (sources,) = reference(call, [numbers])
    flat = tf.reshape(values[0], (-1, numbers.size))
    taken = tf.gather(flat, sources.reshape(-1), axis=1)
    return tf.reshape(taken, (-1, *call.output.shape[1:]))


def _pad(call: Call, values: list[Value]) -> Value:
    return tf.pad(values[0], list(zip(call.attributes.before, call.attributes.after, strict=True)))


def _aligned(call: Call, values: list[Value]) -> list[Value]:
    """Give operands as many axes as the output has, new ones behind the batch."""
    rank = len(call.output.shape)

    def wider(position: int) -> Value:
        shape = call.input(position).shape
        if call.input(position).constant:
            return tf.reshape(values[position], (*[1] * (rank - len(shape)), *shape))
        return tf.reshape(values[position], (-1, *[1] * (rank - len(shape)), *shape[1:]))

    return [wider(0), wider(1)]


def _binary(function: Callable[[Value, Value], Value]) -> Function:
    return lambda call, values: function(*_aligned(call, values))


def _pointwise(function: Callable[[Value], Value]) -> Function:
    return lambda call, values: function(values[0])


LINEAR: dict[str, Linear] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
}

FUNCTIONS: dict[str, Function] = {
    "ABS": _pointwise(tf.abs),
    "ADD": _binary(tf.add),
    "AVERAGE_POOL_2D": average_pool,
    "CONCATENATION": lambda call, values: tf.concat(values, call.attributes.axis),
    "COS": _pointwise(tf.cos),
    "ELU": _pointwise(tf.nn.elu),
    "EXP": _pointwise(tf.exp),
    "GELU": lambda call, values: tf.nn.gelu(values[0], call.attributes.approximate),
    "HARD_SWISH": _pointwise(lambda x: x * tf.clip_by_value(x + 3, 0.0, 6.0) / 6),
    "LEAKY_RELU": lambda call, values: tf.where(
        values[0] < 0, call.attributes.alpha * values[0], values[0]
    ),
    "LOGISTIC": _pointwise(tf.sigmoid),
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "MUL": _binary(tf.multiply),
    "PAD": _pad,
    "RELU": _pointwise(tf.nn.relu),
    "RELU6": _pointwise(tf.nn.relu6),
    "RELU_0_TO_1": _pointwise(lambda x: tf.clip_by_value(x, 0.0, 1.0)),
    "RELU_N1_TO_1": _pointwise(lambda x: tf.clip_by_value(x, -1.0, 1.0)),
    "RESHAPE": lambda call, values: tf.reshape(values[0], (-1, *call.output.shape[1:])),
    "RESIZE_NEAREST_NEIGHBOR": _moved,
    "SIN": _pointwise(tf.sin),
    "SOFTMAX": lambda call, values: tf.nn.softmax(values[0] * call.attributes.beta),
    "SQUARE": _pointwise(tf.square),
    "STRIDED_SLICE": _moved,
    "SUB": _binary(tf.subtract),
    "TANH": _pointwise(tf.tanh),
    "TRANSPOSE": _moved,
}
