"""DEPTHWISE_CONV_2D: slide filters over each channel of an image by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _wide as wide
from tinydeploy.ops import _window as window
from tinydeploy.ops._families import kernels
from tinydeploy.ops._runs import DEPTHWISE
from tinydeploy.ops.base import Array, Call, Op, Stored
from tinydeploy.ops.checks import batch_is_one, int8_or_int16


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_depthwise_conv_2d_params."""

    in_w: int
    in_c: int
    out_w: int
    depth_multiplier: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    dilation_w: int
    pad_left: int
    in_offset: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    weights: Array  # int8 [kernel_h, kernel_w, in_c * depth_multiplier]
    bias: Array  # int32 or int64 [out_c]
    multiplier: Array  # int32 or, over int64 sums, int16 [out_c]
    shift: Array  # int8 [out_c]


def parse(reader: Any) -> window.Window:
    from tflite import DepthwiseConv2DOptions

    options = reader.options(DepthwiseConv2DOptions)
    return window.Window(
        reader.positive(options.StrideH(), "stride"),
        reader.positive(options.StrideW(), "stride"),
        reader.positive(options.DilationHFactor(), "dilation"),
        reader.positive(options.DilationWFactor(), "dilation"),
        reader.padding(options.Padding()),
        reader.activation(options.FusedActivationFunction()),
    )


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
    out = wide.requantized(call, acc, p, single=profile.rounds_once("DEPTHWISE_CONV_2D"))
    out = np.clip(out + p.out_offset, p.clamp_min, p.clamp_max)
    return [out.astype(call.output.dtype.numpy)[None]]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    g, filters = window.convolution(call), values[1][0]
    taps = window.patches(values[0], g, 0)
    multiplier = filters.shape[2] // values[0].shape[3]
    out = np.zeros((g.out_h, g.out_w, filters.shape[2]), np.float32)
    for y in range(g.kernel_h):
        for x in range(g.kernel_w):
            out += np.repeat(taps[:, :, y, x], multiplier, axis=-1) * filters[y, x]
    return [window.activate(out + window.float_bias(call), call.attributes.activation)[None]]


def params(call: Call, profile: IntegerProfile) -> Params:
    g = window.convolution(call)
    inp, weights, output = call.input(), call.input(1), call.output
    assert weights.data is not None
    in_c, out_c = inp.shape[3], weights.shape[3]
    multiplier, shift = window.channel_multipliers(inp, weights, output, out_c)
    bias, multiplier = wide.narrowed(call, window.bias_of(call), multiplier)
    low, high = window.clamp_range(call.attributes.activation, output)
    return Params(
        g.in_w, in_c, g.out_w, out_c // in_c, g.kernel_h, g.kernel_w, g.stride_w, g.dilation_w,
        g.pad_left, -inp.zero_point, output.zero_point, low, high,
        weights.data[0], bias, multiplier, shift,
    )  # fmt: skip


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
    region=lambda call: window.rows_of(window.convolution(call)),
    columns=lambda call: window.columns_of(window.convolution(call)),
    narrow=lambda call, left, right: window.narrowed(
        call.attributes, window.convolution(call), left, right
    ),
    macs=macs,
    kernels=kernels("DEPTHWISE_CONV_2D", (DEPTHWISE, *wide.portable("depthwise_conv_2d", params))),
)  # fmt: skip
