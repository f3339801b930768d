"""FULLY_CONNECTED: multiply a vector by a constant matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _wide as wide
from tinydeploy.ops import _window as window
from tinydeploy.ops._families import kernels
from tinydeploy.ops._runs import RUNS
from tinydeploy.ops.base import Array, Call, Op, Stored, fused_activation
from tinydeploy.ops.checks import int8_or_int16


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the fused activation and whether leading axes are kept."""

    activation: str
    keep_num_dims: bool


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_fully_connected_params."""

    batches: int
    in_c: int
    out_c: int
    in_offset: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    single_rounding: int
    weights: Array  # int8 [out_c, in_c]
    bias: Array  # int32 or int64 [out_c]
    multiplier: Array  # int32 or, over int64 sums, int16 [out_c]
    shift: Array  # int8 [out_c]


def parse(reader: Any) -> Attributes:
    from tflite import FullyConnectedOptions

    options = reader.options(FullyConnectedOptions)
    if options.WeightsFormat() != 0:
        reader.refuse("shuffled weights")
    return Attributes(
        reader.activation(options.FusedActivationFunction()), bool(options.KeepNumDims())
    )


def matrix_fits(call: Call) -> str | None:
    """Weights are a matrix whose rows are as long as the input's vectors."""
    weights, inp = call.input(1).shape, call.input()
    if len(weights) != 2 or weights[1] == 0 or inp.elements % weights[1]:
        return f"weights {list(weights)} for an input of {list(inp.shape)}"
    if call.attributes.keep_num_dims and inp.shape[-1] != weights[1]:
        return f"weights {list(weights)} for vectors of {inp.shape[-1]}"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    units, depth = call.input(1).shape
    if call.attributes.keep_num_dims:
        return [(*call.input().shape[:-1], units)]
    return [(call.input().elements // depth, units)]


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Accumulate in int32, requantise, clamp (TFLite FullyConnected and its PerChannel form)."""
    p = params(call, profile)
    x = values[0].reshape(p.batches, p.in_c).astype(np.float64) + p.in_offset
    acc = (x @ p.weights.T.astype(np.float64)).astype(np.int64) + p.bias
    out = wide.requantized(call, acc, p, single=bool(p.single_rounding))
    out = np.clip(out + p.out_offset, p.clamp_min, p.clamp_max)
    return [out.astype(call.output.dtype.numpy).reshape(call.output.shape)]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    x, weights = values[0], values[1]
    out = x.reshape(-1, weights.shape[1]) @ weights.T + window.float_bias(call)
    return [window.activate(out, call.attributes.activation).reshape(call.output.shape)]


def params(call: Call, profile: IntegerProfile) -> Params:
    inp, weights, output = call.input(), call.input(1), call.output
    assert weights.data is not None and weights.quantization is not None
    units, depth = weights.shape
    multiplier, shift = window.channel_multipliers(inp, weights, output, units)
    if not weights.quantization.per_channel and not wide.on_int16(call):
        # TFLite multiplies the two scales in float32 here (GetQuantizedConvolutionMultipler).
        product = float(np.float32(inp.scale) * np.float32(weights.scale))
        m, s = quantize_multiplier(product / float(output.scale))
        multiplier, shift = np.full(units, m, np.int32), np.full(units, s, np.int8)
    bias, multiplier = wide.narrowed(
        call, window.bias_of(call), multiplier, single=profile.rounds_once("FULLY_CONNECTED")
    )
    low, high = window.clamp_range(call.attributes.activation, output)
    return Params(
        inp.elements // depth, depth, units, -inp.zero_point, output.zero_point, low, high,
        int(profile.rounds_once("FULLY_CONNECTED")),
        weights.data, bias, multiplier, shift,
    )  # fmt: skip


def stored(call: Call) -> Stored:
    options, constants = fused_activation(call)
    return {**options, "KeepNumDims": call.attributes.keep_num_dims}, constants


OP = Op(
    name="FULLY_CONNECTED",
    summary="dense layer, per-tensor or per-channel weights, any number of vectors",
    parse=parse,
    checks=(
        int8_or_int16,
        matrix_fits,
        window.weights_are_constant,
        window.bias_is_constant,
        wide.sums_fit,
    ),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=float_reference,
    params=params,
    macs=lambda call: call.output.elements * call.input(1).shape[1],
    kernels=kernels("FULLY_CONNECTED", (RUNS, *wide.portable("fully_connected", params))),
)
