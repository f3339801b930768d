"""Turn a dense layer into the stream that the Armv7-M kernel reads.

One SMLAL multiplies one element by the weights of two channels, packed into a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier
from tinydeploy.ops import _window as window
from tinydeploy.ops._armv7m.conv import FIELD_BITS, Sums, scaling, sums_of
from tinydeploy.ops.base import Array, Kernel, Site

_GROUP = 8  # channels at a time


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_fully_connected_armv7m_params."""

    batches: int
    in_c: int
    out_c: int
    zero_point: int
    clamp_min: int
    clamp_max: int
    stream: Array  # int32, per eight channels


def dense_scales(site: Site) -> tuple[Array, Array]:
    """Return (multipliers, shifts) per unit as fully_connected.params does."""
    inp, weights, output = site.call.input(), site.call.input(1), site.call.output
    assert weights.quantization is not None
    units = weights.shape[0]
    if weights.quantization.per_channel:
        return window.channel_multipliers(inp, weights, output, units)
    product = float(np.float32(inp.scale) * np.float32(weights.scale))
    m, s = quantize_multiplier(product / float(output.scale))
    return np.full(units, m, np.int32), np.full(units, s, np.int8)


def dense_sums(site: Site) -> Sums:
    call = site.call
    weights = call.input(1)
    assert weights.data is not None
    multiplier, shift = dense_scales(site)
    return sums_of(
        weights.data, window.bias_of(call).astype(np.int64), multiplier, shift,
        call.input().zero_point, call.output.zero_point,
        window.clamp_range(call.attributes.activation, call.output),
    )  # fmt: skip


def accepts(site: Site) -> bool:
    if site.isa != "armv7-m":
        return False
    sums = dense_sums(site)
    return (
        sums.largest < 1 << (FIELD_BITS - 1)
        and bool((sums.shift >= 2).all())
        and bool((np.abs(sums.bias) < 1 << 31).all())
    )


def _single(site: Site) -> bool:
    return site.profile.rounds_once("FULLY_CONNECTED")


def _signed(site: Site, sums: Sums) -> bool:
    return sums.signed and not _single(site)


def stream_of(sums: Sums, wide: bool, twice: bool) -> Array:
    """Return the stream: per eight channels biases, weights, multipliers, shifts."""
    multiplier, shift = scaling(sums, twice)
    field = FIELD_BITS if wide else FIELD_BITS + 1
    parts = []
    for first in range(0, len(multiplier), _GROUP):
        count = min(_GROUP, len(multiplier) - first)

        def padded(values: Array, first: int = first, count: int = count) -> Array:
            part = values[first : first + count].astype(np.int64)
            return np.pad(part, [(0, _GROUP - count)] + [(0, 0)] * (part.ndim - 1))

        bias, weights = padded(sums.bias), padded(sums.weights)
        data = (bias[::2] + (bias[1::2] << field)).astype("<i8").tobytes()
        if wide:
            data += (weights[::2] + (weights[1::2] << field)).T.astype("<i4").tobytes()
        else:
            # Of four bytes the outer two are multiplied together, and the inner two.
            order = weights.reshape(2, 4, -1)[:, [0, 3, 2, 1]]
            order = order + np.array([128, 0, 128, 0])[None, :, None]
            data += (order.reshape(_GROUP, -1).T & 0xFF).astype("u1").tobytes()
        data += padded(multiplier).astype("<i4").tobytes() + padded(shift).astype("i1").tobytes()
        parts.append(data)
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


def params(site: Site) -> Params:
    call, sums = site.call, dense_sums(site)
    units, depth = call.input(1).shape
    return Params(
        call.input().elements // depth, depth, units, 2 * sums.out_zero + 1,
        sums.clamp_min, sums.clamp_max,
        stream_of(sums, site.optimize == "speed", _signed(site, sums)),
    )  # fmt: skip


def constants(site: Site) -> dict[str, int]:
    sums = dense_sums(site)
    return {
        "sign": int(_signed(site, sums)),
        "clamp": int(sums.clamped),
        "wide": int(site.optimize == "speed"),
        "single": int(_single(site)),
    }


DENSE = (
    Kernel(
        "armv7m/fully_connected",
        "td_fully_connected_armv7m",
        accepts=accepts,
        params=params,
        constants=constants,
    ),
)
