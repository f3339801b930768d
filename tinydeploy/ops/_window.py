"""Do the arithmetic that convolutions and pools share: padding, output size, clamps, scales."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinydeploy.ir import Tensor
from tinydeploy.numerics.fixedpoint import quantize_float, quantize_multiplier
from tinydeploy.ops.base import ACTIVATIONS, Array, Call, RowSource, Site, Stored


@dataclass(frozen=True, slots=True)
class Window:
    """Describe a sliding window along height and width.

    Padding is explicit (rows above and below, columns left and right), so that SAME, VALID and a
    folded PAD are one case.
    """

    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    padding: str  # SAME or VALID
    activation: str
    pad_top: int | None = None  # explicit padding replaces `padding` when set
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0


@dataclass(frozen=True, slots=True)
class Geometry:
    """Hold a window applied to an image: sizes in rows, columns and channels."""

    in_h: int
    in_w: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_top: int
    pad_left: int


def _axis(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Return (output size, padding before) as TensorFlow's SAME and VALID define them."""
    reach = (kernel - 1) * dilation + 1
    if padding == "SAME":
        out = -(-size // stride)
        return out, max(0, (out - 1) * stride + reach - size) // 2
    return max(0, -(-(size - reach + 1) // stride)), 0


def geometry(window: Window, image: tuple[int, ...], kernel_h: int, kernel_w: int) -> Geometry:
    """Apply a window to an NHWC image shape."""
    in_h, in_w = image[1], image[2]
    w = window
    if w.pad_top is None:
        out_h, top = _axis(in_h, kernel_h, w.stride_h, w.dilation_h, w.padding)
        out_w, left = _axis(in_w, kernel_w, w.stride_w, w.dilation_w, w.padding)
    else:
        padded_h, padded_w = in_h + w.pad_top + w.pad_bottom, in_w + w.pad_left + w.pad_right
        out_h, _ = _axis(padded_h, kernel_h, w.stride_h, w.dilation_h, "VALID")
        out_w, _ = _axis(padded_w, kernel_w, w.stride_w, w.dilation_w, "VALID")
        top, left = w.pad_top, w.pad_left
    return Geometry(
        in_h, in_w, out_h, out_w, kernel_h, kernel_w,
        w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, top, left,
    )  # fmt: skip


def convolution(call: Call) -> Geometry:
    """Apply a convolution's window; its filters are [_, kernel_h, kernel_w, _]."""
    _, kernel_h, kernel_w, _ = call.input(1).shape
    return geometry(call.attributes, call.input().shape, kernel_h, kernel_w)


def is_one_row(site: Site) -> bool:
    """A 1x1 convolution of stride 1 over plain tensors is one long row."""
    g = convolution(site.call)
    return (
        (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top, g.pad_left) == (1,) * 4 + (0, 0)
        and (g.in_h, g.in_w) == (g.out_h, g.out_w)
        and site.output_layout.plain
        and site.input_layout().plain
    )


def rows_of(g: Geometry) -> tuple[RowSource, ...]:
    """Return the rows a window needs for one output row."""
    return (RowSource(0, g.kernel_h, g.stride_h, -g.pad_top, g.dilation_h),)


def columns_of(g: Geometry) -> tuple[RowSource, ...]:
    """Return the columns a window needs for one output column."""
    return (RowSource(0, g.kernel_w, g.stride_w, -g.pad_left, g.dilation_w),)


def narrowed(window: Window, g: Geometry, left: int, right: int) -> Window:
    """Return the window with its padding made explicit, other columns left and right."""
    reach = (g.kernel_h - 1) * g.dilation_h + 1
    below = max(0, (g.out_h - 1) * g.stride_h + reach - g.in_h - g.pad_top)
    return replace(window, pad_top=g.pad_top, pad_bottom=below, pad_left=left, pad_right=right)


def patches(x: Array, g: Geometry, fill: float) -> Array:
    """Return all windows of an image [1, H, W, C] as [out_h, out_w, kernel_h, kernel_w, C]."""
    reach_h = (g.kernel_h - 1) * g.dilation_h + 1
    reach_w = (g.kernel_w - 1) * g.dilation_w + 1
    below = max(0, (g.out_h - 1) * g.stride_h + reach_h - g.in_h - g.pad_top)
    right = max(0, (g.out_w - 1) * g.stride_w + reach_w - g.in_w - g.pad_left)
    padded = np.pad(x[0], ((g.pad_top, below), (g.pad_left, right), (0, 0)), constant_values=fill)
    view = sliding_window_view(padded, (reach_h, reach_w), axis=(0, 1))
    view = view[:: g.stride_h, :: g.stride_w, :, :: g.dilation_h, :: g.dilation_w]
    return np.moveaxis(view[: g.out_h, : g.out_w], 2, 4)


def clamp_range(activation: str, output: Tensor) -> tuple[int, int]:
    """Return the stored bounds of a fused activation (TFLite CalculateActivationRangeQuantized)."""
    low, high = output.dtype.bounds

    def stored(real: float) -> int:
        return int(
            quantize_float(np.array(real), output.scale, output.zero_point, output.dtype.value)
        )

    if activation in ("RELU", "RELU6"):
        low = max(low, stored(0.0))
    if activation == "RELU_N1_TO_1":
        low, high = max(low, stored(-1.0)), min(high, stored(1.0))
    if activation == "RELU6":
        high = min(high, stored(6.0))
    return low, high


_CLAMPS = {"NONE": (None, None), "RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


def stored(call: Call) -> Stored:
    """Return the options of a convolution whose padding is SAME or VALID."""
    w: Window = call.attributes
    options = {
        "StrideH": w.stride_h, "StrideW": w.stride_w,
        "DilationHFactor": w.dilation_h, "DilationWFactor": w.dilation_w,
        "Padding": ("SAME", "VALID").index(w.padding),
        "FusedActivationFunction": ACTIVATIONS.index(w.activation),
    }  # fmt: skip
    return options, []


def activate(values: Array, activation: str) -> Array:
    """Apply a fused activation to real values."""
    low, high = _CLAMPS[activation]
    return values if low is None else np.clip(values, low, high)


def activation_of(attributes: Any) -> str | None:
    """Return the fused activation that attributes name, those of a pool in their window."""
    name: str | None = getattr(getattr(attributes, "window", attributes), "activation", None)
    return name


def with_activation(attributes: Any, name: str) -> Any:
    """Return attributes with another fused activation."""
    if any(f.name == "window" for f in fields(attributes)):
        return replace(attributes, window=replace(attributes.window, activation=name))
    return replace(attributes, activation=name)


def float_bias(call: Call) -> Array | float:
    """Return the bias of a float node, 0 when it has none."""
    data = call.input(2).data if call.has_input(2) else None
    return 0.0 if data is None else data.reshape(-1)


def channel_multipliers(
    inp: Tensor, weights: Tensor, output: Tensor, channels: int
) -> tuple[Array, Array]:
    """Return (multipliers, shifts) per output channel.

    TensorFlow Lite, PopulateConvolutionQuantizationParams: products and quotients in float64.
    """
    assert weights.quantization is not None
    scales = weights.quantization.scales
    pairs = [quantize_multiplier(float(inp.scale) * float(s) / float(output.scale)) for s in scales]
    if len(pairs) == 1:
        pairs *= channels
    return (
        np.array([m for m, _ in pairs], np.int32),
        np.array([s for _, s in pairs], np.int8),
    )


def weights_are_constant(call: Call) -> str | None:
    """Weights are constant int8 or int4, zero point 0, one scale or one per output channel."""
    weights, output = call.input(1), call.output
    if not weights.constant or weights.dtype.value != "int8":
        return f"weights '{weights.name}' are {weights.dtype.value}"
    q = weights.quantization
    if q is None or any(q.zero_points):
        return f"weights '{weights.name}' have a zero point other than 0 or no quantisation"
    if len(q.scales) not in (1, output.shape[-1]):
        return f"{len(q.scales)} scales for {output.shape[-1]} output channels"
    for scale in q.scales:
        real = float(call.input().scale) * scale / float(output.scale)
        if not math.isfinite(real) or real < 0 or real >= 2**30:
            return f"the output multiplier {real:.3g} is out of range"
    return None


def bias_is_constant(call: Call) -> str | None:
    """The bias, if any, is constant int32, int64 with int16 activations, one value per channel."""
    if not call.has_input(2):
        return None
    bias = call.input(2)
    kind = "int64" if call.output.dtype.value == "int16" else "int32"
    if not bias.constant or bias.dtype.value != kind or bias.elements != call.output.shape[-1]:
        return f"bias is {bias.dtype.value}{list(bias.shape)}"
    return None


def bias_of(call: Call) -> Array:
    """Return the bias as stored, zeros when the node has none."""
    if call.has_input(2):
        data = call.input(2).data
        assert data is not None
        return data.reshape(-1)
    return np.zeros(call.output.shape[-1], np.int32)
