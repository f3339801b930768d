"""Turn a convolution, of all channels or of each by itself, into what its kernels are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _wide as wide
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import Array, Call, RowSource

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Across:
    """Begin parameters with where the windows of a row's outputs lie."""

    in_w: int
    in_c: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    dilation_w: int
    pad_left: int


@dataclass(frozen=True, slots=True)
class Params(Across):
    """Begin the parameters of both convolutions."""

    in_offset: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    weights: Array
    bias: Array  # int32 or int64 [out_c]
    multiplier: Array  # int32 or, over int64 sums, int16 [out_c]
    shift: Array  # int8 [out_c]


@dataclass(frozen=True, slots=True)
class ConvParams(Params):
    """Mirror td_conv_2d_params; weights are int8 [out_c, kernel_h, kernel_w, in_c / groups]."""

    out_c: int
    groups: int


@dataclass(frozen=True, slots=True)
class DepthwiseParams(Params):
    """Mirror td_depthwise_conv_2d_params; weights are int8 [kernel_h, kernel_w, out_c]."""

    depth_multiplier: int


def extended(kind: Callable[..., T], params: Any, *more: Any) -> T:
    """Return parameters as a kind that has more fields behind theirs."""
    return kind(*(getattr(params, f.name) for f in fields(params)), *more)


def taken(kind: type[T], params: Any, **others: Any) -> T:
    """Return parameters of a kind, its fields those of the same names, and others."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return kind(**{n: getattr(params, n) for n in names if n not in others}, **others)


def _common(call: Call, weights: Array) -> Params:
    g, inp, output = window.convolution(call), call.input(), call.output
    multiplier, shift = window.channel_multipliers(inp, call.input(1), output, output.shape[3])
    bias, multiplier = wide.narrowed(call, window.bias_of(call), multiplier)
    low, high = window.clamp_range(call.attributes.activation, output)
    return Params(
        g.in_w, inp.shape[3], g.out_w, g.kernel_h, g.kernel_w, g.stride_w, g.dilation_w, g.pad_left,
        -inp.zero_point, output.zero_point, low, high, weights, bias, multiplier, shift,
    )  # fmt: skip


def conv_params(call: Call, profile: IntegerProfile) -> ConvParams:
    weights = call.input(1).data
    assert weights is not None
    groups = call.input().shape[3] // weights.shape[3]
    return extended(ConvParams, _common(call, weights), weights.shape[0], groups)


def depthwise_params(call: Call, profile: IntegerProfile) -> DepthwiseParams:
    weights = call.input(1).data
    assert weights is not None
    multiplier = weights.shape[3] // call.input().shape[3]
    return extended(DepthwiseParams, _common(call, weights[0]), multiplier)


def parse(reader: Any, options: Any) -> window.Window:
    """Read the options of either convolution, which have the same names."""
    return window.Window(
        reader.positive(options.StrideH(), "stride"),
        reader.positive(options.StrideW(), "stride"),
        reader.positive(options.DilationHFactor(), "dilation"),
        reader.positive(options.DilationWFactor(), "dilation"),
        reader.padding(options.Padding()),
        reader.activation(options.FusedActivationFunction()),
    )


def requantized(call: Call, sums: Array, p: Params, profile: IntegerProfile) -> list[Array]:
    """Return the output image for sums [out_h, out_w, out_c]."""
    out = wide.requantized(call, sums, p, single=profile.rounds_once(call.node.op))
    out = (out + p.out_offset).clip(p.clamp_min, p.clamp_max)
    return [out.astype(call.output.dtype.numpy)[None]]


def region(call: Call) -> tuple[RowSource, ...]:
    return window.rows_of(window.convolution(call))


def columns(call: Call) -> tuple[RowSource, ...]:
    return window.columns_of(window.convolution(call))


def narrow(call: Call, left: int, right: int) -> window.Window:
    return window.narrowed(call.attributes, window.convolution(call), left, right)
