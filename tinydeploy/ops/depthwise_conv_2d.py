"""DEPTHWISE_CONV_2D: slide filters over each channel of an image by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _convolution as convolution
from tinydeploy.ops import _wide as wide
from tinydeploy.ops import _window as window
from tinydeploy.ops._families import kernels
from tinydeploy.ops._runs import DEPTHWISE
from tinydeploy.ops.base import Array, Call, Op, Stored
from tinydeploy.ops.checks import batch_is_one, int8_or_int16

params = convolution.depthwise_params


def parse(reader: Any) -> window.Window:
    from tflite import DepthwiseConv2DOptions

    return convolution.parse(reader, reader.options(DepthwiseConv2DOptions))


def filters_fit(call: Call) -> str | None:
    """Filters are [1, height, width, channels * multiplier]."""
    weights, channels = call.input(1).shape, call.input().shape[-1]
    if len(weights) != 4 or weights[0] != 1 or channels == 0 or weights[3] % channels:
        return f"filters {list(weights)} over {channels} channels"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    g = window.convolution(call)
    return [(1, g.out_h, g.out_w, call.input(1).shape[3])]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Accumulate in int32, requantise per channel, clamp (TFLite DepthwiseConvPerChannel)."""
    p = params(call, profile)
    x = values[0].astype(np.int64) + p.in_offset
    taps = np.repeat(window.patches(x, window.convolution(call), 0), p.depth_multiplier, axis=-1)
    acc = np.einsum("hwijc,ijc->hwc", taps, p.weights.astype(np.int64)) + p.bias
    return convolution.requantized(call, acc, p, profile)


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    g, filters = window.convolution(call), values[1][0]
    taps = window.patches(values[0], g, 0)
    multiplier = filters.shape[2] // values[0].shape[3]
    out = np.zeros((g.out_h, g.out_w, filters.shape[2]), np.float32)
    for y in range(g.kernel_h):
        for x in range(g.kernel_w):
            out += np.repeat(taps[:, :, y, x], multiplier, axis=-1) * filters[y, x]
    return [window.activate(out + window.float_bias(call), call.attributes.activation)[None]]


def macs(call: Call) -> int:
    _, kernel_h, kernel_w, _ = call.input(1).shape
    return call.output.elements * kernel_h * kernel_w


def stored(call: Call) -> Stored:
    options, constants = window.stored(call)
    multiplier = call.input(1).shape[3] // call.input().shape[3]
    return {**options, "DepthMultiplier": multiplier}, constants


OP = Op(
    name="DEPTHWISE_CONV_2D",
    summary="depthwise convolution, any multiplier, stride and dilation, per-channel weights",
    parse=parse,
    checks=(int8_or_int16, batch_is_one, filters_fit, window.weights_are_constant,
            window.bias_is_constant, wide.sums_fit),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=float_reference,
    params=params,
    region=convolution.region,
    columns=convolution.columns,
    narrow=convolution.narrow,
    macs=macs,
    kernels=kernels("DEPTHWISE_CONV_2D", (DEPTHWISE, *wide.portable("depthwise_conv_2d", params))),
)  # fmt: skip
