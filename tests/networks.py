"""Make small whole networks with seeded weights, for boards and tests that need little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from builder import Builder


def residual_network(seed: int = 0, size: int = 10, channels: int = 8) -> bytes:
    """Return a .tflite with convolutions, ADD, pool, dense layer, softmax; some hundred bytes."""
    rng = np.random.default_rng(seed)
    b = Builder()

    def weights(*shape: int, axis: int = 0) -> int:
        scales = rng.uniform(0.005, 0.02, shape[axis])
        data = rng.integers(-127, 128, shape).astype(np.int8)
        return b.tensor(shape, "int8", scales, np.zeros(shape[axis], int), axis=axis, data=data)

    def bias(n: int) -> int:
        return b.constant(rng.integers(-2000, 2000, n), "int32", 0.001)

    half = size // 2
    image = b.tensor((1, size, size, 1), scale=0.02, zero=-5, name="image")
    stem = b.tensor((1, half, half, channels), scale=0.05, zero=-128, name="stem")
    depth = b.tensor((1, half, half, channels), scale=0.07, zero=3, name="depthwise")
    point = b.tensor((1, half, half, channels), scale=0.1, zero=-7, name="pointwise")
    total = b.tensor((1, half, half, channels), scale=0.12, zero=-20, name="sum")
    pooled = b.tensor((1, 1, 1, channels), scale=0.12, zero=-20, name="pooled")
    flat = b.tensor((1, channels), scale=0.12, zero=-20, name="flat")
    scores = b.tensor((1, 4), scale=0.1, zero=5, name="scores")
    shares = b.tensor((1, 4), scale=1 / 256, zero=-128, name="shares")
    window = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    b.operator("CONV_2D", [image, weights(channels, 3, 3, 1), bias(channels)], stem,
               **{**window, "StrideH": 2, "StrideW": 2, "FusedActivationFunction": 1})  # fmt: skip
    b.operator("DEPTHWISE_CONV_2D",
               [stem, weights(1, 3, 3, channels, axis=3), bias(channels)], depth,
               **window, DepthMultiplier=1)  # fmt: skip
    b.operator(
        "CONV_2D", [depth, weights(channels, 1, 1, channels), bias(channels)], point, **window
    )
    b.operator("ADD", [stem, point], total)
    b.operator("AVERAGE_POOL_2D", [total], pooled, Padding=1, StrideH=half, StrideW=half,
               FilterHeight=half, FilterWidth=half)  # fmt: skip
    b.operator("RESHAPE", [pooled, b.constant([1, channels])], flat)
    b.operator("FULLY_CONNECTED", [flat, weights(4, channels), bias(4)], scores)
    b.operator("SOFTMAX", [scores], shares, Beta=1.0)
    return b.build([image], [shares])


def break_softmax(kernels: Path) -> None:
    """Have the SOFTMAX of generated C give one more than it should."""
    text = kernels.read_text()
    broken = text.replace("int32_t value = INT8_MIN;", "int32_t value = INT8_MIN + 1;")
    assert broken != text
    kernels.write_text(broken)


def float_network(seed: int = 0, poison: float = 0.0) -> bytes:
    """Return a float .tflite whose batch normalisation and clamps are nodes of their own.

    `poison` replaces one weight where it is not 0.
    """
    rng = np.random.default_rng(seed)
    b = Builder()

    def value(*shape: int) -> int:
        return b.tensor(shape, "float32", None)

    def constant(*shape: int, low: float = -1.0, high: float = 1.0) -> int:
        return b.constant(rng.uniform(low, high, shape).astype(np.float32), "float32")

    window = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    filters = rng.uniform(-0.5, 0.5, (6, 3, 3, 3)).astype(np.float32)
    filters[0, 0, 0, 0] = poison or filters[0, 0, 0, 0]
    image, stem, scaled, shifted, clamped = value(1, 8, 8, 3), *(value(1, 8, 8, 6) for _ in "1234")
    b.operator("CONV_2D", [image, b.constant(filters, "float32"), constant(6)], stem, **window)
    b.operator("MUL", [stem, constant(6, low=0.5, high=2)], scaled)
    b.operator("ADD", [scaled, constant(6)], shifted)
    b.operator("RELU6", [shifted], clamped)
    depth, scaled_depth, total = (value(1, 8, 8, 6) for _ in range(3))
    b.operator("DEPTHWISE_CONV_2D", [clamped, constant(1, 3, 3, 6), constant(6)], depth,
               **window, DepthMultiplier=1)  # fmt: skip
    b.operator("MUL", [constant(1, 1, 1, 6), depth], scaled_depth)
    b.operator("ADD", [clamped, scaled_depth], total, FusedActivationFunction=1)
    pooled, score, probability = value(1, 6), value(1, 1), value(1, 1)
    b.operator("MEAN", [total, b.constant([1, 2])], pooled, KeepDims=False)
    b.operator("FULLY_CONNECTED", [pooled, constant(1, 6), constant(1)], score)
    b.operator("LOGISTIC", [score], probability)
    return b.build([image], [probability])
