"""Share what the two pools have in common: options, window and parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import Call, Stored


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold a pool's window and its size in rows and columns."""

    window: window.Window
    kernel_h: int
    kernel_w: int


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_average_pool_2d_params and td_max_pool_2d_params."""

    in_w: int
    channels: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    pad_left: int
    clamp_min: int
    clamp_max: int


def parse(reader: Any) -> Attributes:
    from tflite import Pool2DOptions

    options = reader.options(Pool2DOptions)
    return Attributes(
        window.Window(
            reader.positive(options.StrideH(), "stride"),
            reader.positive(options.StrideW(), "stride"),
            1,
            1,
            reader.padding(options.Padding()),
            reader.activation(options.FusedActivationFunction()),
        ),
        reader.positive(options.FilterHeight(), "filter height"),
        reader.positive(options.FilterWidth(), "filter width"),
    )


def stored(call: Call) -> Stored:
    a: Attributes = call.attributes
    options, constants = window.stored(Call(call.graph, replace(call.node, attributes=a.window)))
    del options["DilationHFactor"], options["DilationWFactor"]
    return {**options, "FilterHeight": a.kernel_h, "FilterWidth": a.kernel_w}, constants


def geometry(call: Call) -> window.Geometry:
    a = call.attributes
    return window.geometry(a.window, call.input().shape, a.kernel_h, a.kernel_w)


def narrow(call: Call, left: int, right: int) -> Attributes:
    a: Attributes = call.attributes
    return replace(a, window=window.narrowed(a.window, geometry(call), left, right))


def shape(call: Call) -> list[tuple[int, ...]]:
    g = geometry(call)
    return [(1, g.out_h, g.out_w, call.input().shape[3])]


def params(call: Call, profile: IntegerProfile) -> Params:
    g = geometry(call)
    low, high = window.clamp_range(call.attributes.window.activation, call.output)
    return Params(
        g.in_w, call.input().shape[3], g.out_w, g.kernel_h, g.kernel_w, g.stride_w, g.pad_left,
        low, high,
    )  # fmt: skip
