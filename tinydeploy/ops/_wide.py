"""Turn a convolution or dense layer over int16 activations into sums, multipliers and shifts.

Activations are int16 with zero point 0, weights int8, bias and sums int64. Sums are requantised
with a multiplier of 15 bits, rounded once (TensorFlow Lite, "16x8"). Where a profile says that an
operator rounds once, so LiteRT's FULLY_CONNECTED, the multiplier has 31 bits and halves go away
from zero. LiteRT multiplies those sums in float64: measured over 1.8 million values, 2 differ.

Where the weights show that no sum can need more than 32 bits, that is what kernels take.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics.fixedpoint import (
    reduced_multiplier,
    requantize,
    requantize_wide,
    requantize_wide_once,
    wrap32,
)
from tinydeploy.ops.base import Array, Call, Kernel, Site

# TensorFlow Lite asserts that a multiplier is below 2^7, and a sum fits 48 bits: a bias of 47 and
# 2^23 products of 23 bits do.
_MULTIPLIER_LIMIT, _BIAS_LIMIT, _WEIGHTS_LIMIT = 2.0**7, 2**46, 2**23


def on_int16(call: Call) -> bool:
    return call.output.dtype is DType.INT16


def largest_sum(call: Call, bias: Array) -> int:
    """Bound the magnitude of any partial sum: all activations at -32768, against each weight."""
    weights = call.input(1).data
    assert weights is not None
    channels = 3 if call.node.op == "DEPTHWISE_CONV_2D" else 0
    others = tuple(k for k in range(weights.ndim) if k != channels)
    products = np.abs(weights.astype(np.int64)).sum(axis=others) * 2**15
    return int((np.abs(bias.astype(np.int64)) + products).max(initial=0))


def sums_fit(call: Call) -> str | None:
    """Sums of int16 products fit 48 bits, and their multipliers are below 2^7."""
    if not on_int16(call):
        return None
    quantization = call.input(1).quantization
    assert quantization is not None
    scale = max(quantization.scales)
    real = float(call.input().scale) * scale / float(call.output.scale)
    if real >= _MULTIPLIER_LIMIT:
        return f"a multiplier is {real:.3g}"
    bias = call.input(2).data if call.has_input(2) else None
    if bias is not None and bias.size and max(abs(int(bias.min())), int(bias.max())) >= _BIAS_LIMIT:
        return "a bias needs more than 47 bits"
    return (
        None if call.input(1).elements <= _WEIGHTS_LIMIT else f"{call.input(1).elements:,} weights"
    )


def narrowed(
    call: Call, bias: Array, multiplier: Array, *, single: bool = False
) -> tuple[Array, Array]:
    """Return bias and multipliers as the kernel takes them.

    Over int16 activations multipliers become int16, unless sums are rounded once with all bits; the
    bias becomes int32 where no sum can need more.
    """
    if not on_int16(call):
        return bias, multiplier
    fits = largest_sum(call, bias) < 2**31
    stored = bias.astype(np.int32 if fits else np.int64)
    return stored, multiplier if single else reduced_multiplier(multiplier)


def requantized(call: Call, sums: Array, p: Any, *, single: bool) -> Array:
    """Return sums in the output's scale, not yet clamped, for parameters of a weighted operator."""
    if on_int16(call):
        requantizer = requantize_wide_once if single else requantize_wide
        return requantizer(sums, p.multiplier, p.shift)
    return requantize(wrap32(sums), p.multiplier, p.shift, single=single)


def portable(template: str, params: Any) -> tuple[Kernel, ...]:
    """Return the portable kernel; `params` gives an operator's parameters."""

    def constants(site: Site) -> dict[str, int]:
        if not on_int16(site.call):
            return {}
        p = params(site.call, site.profile)
        return {
            "bits": 16, "sum": 8 * p.bias.dtype.itemsize,
            "multiplier": 8 * p.multiplier.dtype.itemsize,
        }  # fmt: skip

    return (Kernel(template, f"td_{template}", constants=constants, by_rows=True),)
