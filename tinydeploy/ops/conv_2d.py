"""CONV_2D: slide dense filters over an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _convolution as convolution
from tinydeploy.ops import _wide as wide
from tinydeploy.ops import _window as window
from tinydeploy.ops._families import kernels
from tinydeploy.ops._runs import RUNS
from tinydeploy.ops.base import Array, Call, Op
from tinydeploy.ops.checks import batch_is_one, int8_or_int16

params = convolution.conv_params


def parse(reader: Any) -> window.Window:
    from tflite import Conv2DOptions

    return convolution.parse(reader, reader.options(Conv2DOptions))


def groups_divide(call: Call) -> str | None:
    """Filters are 4-D, and their channels divide the input's channels and the number of filters."""
    weights, channels = call.input(1).shape, call.input().shape[-1]
    if len(weights) != 4 or weights[3] == 0 or channels % weights[3]:
        return f"filters {list(weights)} over {channels} channels"
    if weights[0] % (channels // weights[3]):
        return f"{weights[0]} filters in {channels // weights[3]} groups"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    g = window.convolution(call)
    return [(1, g.out_h, g.out_w, call.input(1).shape[0])]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Accumulate in int32, requantise per channel, clamp (TFLite ConvPerChannel)."""
    p = params(call, profile)
    x = values[0].astype(np.int64) + p.in_offset
    taps = window.patches(x, window.convolution(call), 0)
    per_group_in, per_group_out = p.in_c // p.groups, p.out_c // p.groups
    parts = []
    for g in range(p.groups):
        inputs = taps[..., g * per_group_in : (g + 1) * per_group_in]
        filters = p.weights[g * per_group_out : (g + 1) * per_group_out].reshape(per_group_out, -1)
        flat = inputs.reshape(*inputs.shape[:2], -1)
        # float64 holds every partial sum of int8 products exactly, and uses fast matrix code.
        parts.append(flat.astype(np.float64) @ filters.T.astype(np.float64))
    acc = np.concatenate(parts, axis=-1).astype(np.int64) + p.bias
    return convolution.requantized(call, acc, p, profile)


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    g, filters = window.convolution(call), values[1]
    taps = window.patches(values[0], g, 0)
    out_c, per_group_in = filters.shape[0], filters.shape[3]
    groups = values[0].shape[3] // per_group_in
    parts = [
        taps[..., k * per_group_in : (k + 1) * per_group_in].reshape(g.out_h * g.out_w, -1)
        @ filters[k * out_c // groups : (k + 1) * out_c // groups].reshape(out_c // groups, -1).T
        for k in range(groups)
    ]
    out = np.concatenate(parts, axis=-1).reshape(1, g.out_h, g.out_w, out_c)
    return [window.activate(out + window.float_bias(call), call.attributes.activation)]


def macs(call: Call) -> int:
    return call.output.elements * int(np.prod(call.input(1).shape[1:]))


OP = Op(
    name="CONV_2D",
    summary="2-D convolution, any stride, dilation and number of groups, per-channel weights",
    parse=parse,
    checks=(int8_or_int16, batch_is_one, groups_divide, window.weights_are_constant,
            window.bias_is_constant, wide.sums_fit),
    shape=shape,
    reference=reference,
    stored=window.stored,
    float_reference=float_reference,
    params=params,
    region=convolution.region,
    columns=convolution.columns,
    narrow=convolution.narrow,
    macs=macs,
    kernels=kernels("CONV_2D", (RUNS, *wide.portable("conv_2d", params))),
)  # fmt: skip
