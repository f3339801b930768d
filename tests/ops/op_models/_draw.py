"""Draw the parts that models of all operators have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from builder import Builder
from numpy.random import Generator

from tinydeploy.importers import tdm, tflite
from tinydeploy.ir import Graph

ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}


@dataclass(frozen=True, slots=True)
class Model:
    """Hold a model file and what to call it when it fails; LiteRT may refuse it if told so."""

    text: str
    content: bytes
    litert: bool = True


def read_bytes(content: bytes, name: str) -> Graph:
    """Read a model file: a .tflite, or a .tdm for what only that can hold."""
    if content[:2] == b"PK":
        return tdm.read_bytes(content).replace(name=name)
    return tflite.read_bytes(content, name)


def integer(random: Generator, low: int, high: int) -> int:
    """Return an integer of low .. high, both included."""
    return int(random.integers(low, high + 1))


def zero_point(random: Generator) -> int:
    """Return a zero point, often at an extreme."""
    return int(random.choice([-128, 127, 0, integer(random, -128, 127)]))


def scale(random: Generator, low: float = -10, high: float = 2) -> float:
    """Return a scale of 2^low .. 2^high, often a power of two, as float32 holds it."""
    exponent = random.uniform(low, high)
    if random.random() < 0.2:
        exponent = min(round(exponent), math.floor(high))
    return float(np.float32(2.0**exponent))


def activation(random: Generator) -> int:
    return integer(random, 0, 3)


def weights(random: Generator, shape: Sequence[int]) -> np.ndarray:
    """Return int8 weights, the extremes among them."""
    values = random.integers(-128, 128, shape).astype(np.int8)
    if random.random() < 0.3:
        values[random.random(shape) < 0.5] = random.choice([-128, 127])
    return values


def biases(random: Generator, count: int) -> np.ndarray:
    return random.integers(-1, 2, count) * random.integers(0, 1 << integer(random, 1, 22), count)


def real_multiplier(random: Generator, taps: int) -> float:
    """Return accumulator scale / output scale: useful for so many taps, or any shift -20 .. 5."""
    if random.random() < 0.7:
        return float(2.0 ** random.uniform(-7, -4) / np.sqrt(taps))
    return float(2.0 ** random.uniform(-20, 5))


def add_weights(
    b: Builder,
    random: Generator,
    source_scale: float,
    shape: Sequence[int],
    channels: int,
    axis: int,
    taps: int,
) -> tuple[list[int], float]:
    """Add weights and, mostly, a bias; return their indices and the output scale.

    One scale or one per channel. LiteRT wants the bias' scale to be the product of the others.
    """
    per_channel = random.random() < 0.7
    count = channels if per_channel else 1
    scales = np.float32([scale(random, -8, -6) for _ in range(count)])
    inputs = [b.constant(weights(random, shape), "int8", scales, axis=axis)]
    products = np.float32(source_scale) * scales
    kind = integer(random, 0, 3)
    if kind == 0 and len(shape) == 2:
        inputs.append(-1)  # LiteRT takes a bias left out like this in FULLY_CONNECTED only
    elif kind > 1:
        inputs.append(b.constant(biases(random, channels), "int32", products))
    return inputs, float(np.float32(float(products.max()) / real_multiplier(random, taps)))


def image(random: Generator, *, high: int = 9, channels: int = 7) -> tuple[int, int, int, int]:
    return (1, integer(random, 1, high), integer(random, 1, high), integer(random, 1, channels))


def shape(random: Generator, rank: int | None = None, high: int = 7) -> tuple[int, ...]:
    """Return a shape of rank 1 to 4, batch 1 at rank 4."""
    rank = integer(random, 1, 4) if rank is None else rank
    sizes = tuple(integer(random, 1, high) for _ in range(rank))
    return (1, *sizes[1:]) if rank == 4 else sizes


def window(random: Generator, size: int, padding: int, most: int = 5) -> tuple[int, int, int]:
    """Return (kernel, stride, dilation) that fit an axis; VALID windows (padding 1) lie inside."""
    kernel, stride, dilation = (integer(random, 1, n) for n in (most, 3, 3))
    while padding == 1 and (kernel - 1) * dilation + 1 > size:
        kernel = max(1, kernel - 1)
    return kernel, stride, dilation


def window_output(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """Return the size of the output as the file declares it."""
    return -(-(size if padding == 0 else size - (kernel - 1) * dilation) // stride)
