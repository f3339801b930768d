"""Turn weights and scales into the streams of constants that the kernels for MVE read."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops.base import Array

# How a kernel rounds; templates/ops/mve/gemm.c.j2 says why each is exact.
SATURATED, AWAY, GENERAL, ONCE, ONCE_LEFT = range(5)

INT8 = (-128, 127)


def rounding_mode(shift: Array, zero: int, low: int, once: bool) -> int:
    """Return the cheapest way of rounding that is exact for these shifts and this output."""
    if once:
        return ONCE if int(shift.max()) <= -2 else ONCE_LEFT
    if int(shift.max()) > 0:
        return GENERAL
    if zero == -128 and low == -128:
        return SATURATED
    return AWAY if int(shift.max()) <= -1 else GENERAL


def bound(weights: Array, bias: Array) -> int:
    """Return the largest magnitude of bias + sum(w * x); weights [channel, ...], x int8."""
    w = np.abs(weights.reshape(len(weights), -1).astype(np.int64)).sum(axis=1) * 128
    return int((w + np.abs(bias.astype(np.int64))).max())


def folded_bias(weights: Array, bias: Array, zero: int) -> Array:
    """Return bias - zero * sum(w) per channel modulo 2^32; weights [channel, ...]."""
    total = weights.reshape(len(weights), -1).astype(np.int64).sum(axis=1)
    wide = bias.astype(np.int64) - zero * total
    wrapped: Array = wide.astype(np.uint64).astype(np.uint32).view(np.int32)
    return wrapped


def shifts(shift: Array, mode: int) -> list[Array]:
    """Return the vectors of a channel group: [shift left,] then shift right, as VSHL counts."""
    wide = shift.astype(np.int32)
    if mode == GENERAL:
        return [np.maximum(wide, 0), np.minimum(wide, 0)]
    if mode == ONCE:
        return [wide + 1]
    if mode == ONCE_LEFT:
        left = np.maximum(wide + 2, 0)
        return [left, wide - left + 1]
    return [wide]


def _rows(vector: Array, width: int) -> Array:
    """Return int32 constants as bytes, a group of channels per row."""
    return np.ascontiguousarray(vector, np.int32).reshape(-1, width).view(np.int8)


def stream(
    weights: Array, bias: Array, multiplier: Array, shift: Array, mode: int, width: int = 4
) -> Array:
    """Return constants per group of `width` channels: weights by 16 along K, then vectors.

    weights: int8 [channels, runs, length]; each run is padded with zeros to a multiple of 16.
    Shifts are bytes. The result is int32, so that it is aligned to words.
    """
    channels, runs, length = weights.shape
    padded = np.zeros((channels, runs, -(-length // 16) * 16), np.int8)
    padded[:, :, :length] = weights
    blocks = padded.reshape(channels // width, width, -1, 16).transpose(0, 2, 1, 3)
    *left, right = shifts(shift, mode)
    parts = [blocks.reshape(channels // width, -1), _rows(bias, width)]
    parts += [v.astype(np.int8).reshape(-1, width) for v in left]
    parts += [_rows(multiplier, width), right.astype(np.int8).reshape(-1, width)]
    return np.ascontiguousarray(np.concatenate(parts, axis=1)).view(np.int32)
