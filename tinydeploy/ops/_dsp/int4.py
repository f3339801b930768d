"""Turn convolutions and dense layers with weights of 2 or 4 bits into kernels for SMLAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.requant import Requant, is_dsp, pair, requant
from tinydeploy.ops._weights import weight_bits
from tinydeploy.ops.base import Call, Kernel, Site

Array = NDArray[Any]

CHUNK = 8  # groups of four weights that the unrolled loops hold
# The sum of the topmost of four nibbles is found shifted left by 12 bits.
LARGEST_SUM = 2**19


@dataclass(frozen=True, slots=True)
class ConvParams:
    """Mirror the parameters of dsp/conv_2d_int4.c.j2."""

    out_w: int
    kernel_h: int
    segment: int  # bytes of one row of a patch
    pitch: int  # the same in whole words
    step: int  # bytes between the patches of neighbouring pixels
    pad: int  # bytes of padding left of a row
    row: int  # bytes of an input row
    zero_point: int
    out_pixel: int
    out_row: int  # bytes of an output row, for clamping
    clamp: int
    clamp_min: int
    clamp_max: int
    groups: int
    chunks: int
    stream: Array
    stream_end: int  # words


@dataclass(frozen=True, slots=True)
class DenseParams:
    """Mirror the parameters of dsp/fully_connected_int4.c.j2."""

    batches: int
    in_c: int
    out_c: int
    clamp: int
    clamp_min: int
    clamp_max: int
    groups: int
    chunks: int
    stream: Array
    stream_end: int  # words


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold a layer as a matrix [channels, taps], taps in whole groups of four."""

    matrix: Array
    bias: Array
    requant: Requant
    bits: int
    once: bool

    @property
    def groups(self) -> int:
        """Groups of four taps."""
        return int(self.matrix.shape[1]) // 4


def _plan(site: Site, matrix: Array, multiplier: Array, shift: Array, bias: Array) -> _Plan | None:
    """Fold the zero point and find the requantisation; None where sums or shifts do not fit.

    matrix: [channels, taps], taps that do not exist being 0.
    """
    call, bits = site.call, weight_bits(matrix)
    if bits == 8 or 128 * int(np.abs(matrix).sum(axis=1).max()) >= LARGEST_SUM:
        return None
    folded = bias - call.input().zero_point * matrix.sum(axis=1)
    once = site.profile.rounds_once(call.node.op)
    how = requant(
        matrix, folded, multiplier, shift, call.output.zero_point, once, False, general=True
    )
    if how is None:
        return None
    keep = np.where(how.constant, 0, 1)
    return _Plan(matrix * keep[:, None], folded * keep, how, bits, once)


def _usable(site: Site) -> bool:
    """Where speed alone counts wider weights are faster; where size does, C is smaller."""
    return is_dsp(site) and site.optimize == "balanced" and site.call.output.elements > 0


def _conv(site: Site) -> _Plan | None:
    call, g = site.call, window.convolution(site.call)
    weights, in_c = call.input(1).data, call.input().shape[3]
    assert weights is not None
    if not _usable(site) or weights.shape[3] != in_c or (g.dilation_w != 1 and g.kernel_w != 1):
        return None
    filters, segment = weights.shape[0], g.kernel_w * in_c
    rows = weights.reshape(filters, g.kernel_h, segment).astype(np.int64)
    matrix = np.pad(rows, ((0, 0), (0, 0), (0, -segment % 4))).reshape(filters, -1)
    scales = window.channel_multipliers(call.input(), call.input(1), call.output, filters)
    return _plan(site, matrix, *scales, window.bias_of(call))


def _dense(site: Site) -> _Plan | None:
    if not _usable(site):
        return None
    p = _scales(site.call, site)
    depth = p.weights.shape[1]
    matrix = np.pad(p.weights.astype(np.int64), ((0, 0), (0, -depth % 4)))
    return _plan(site, matrix, p.multiplier, p.shift, p.bias)


def _scales(call: Call, site: Site) -> Any:
    """Return the operator's own parameters, which hold its multipliers."""
    from tinydeploy.ops.fully_connected import params

    return params(call, site.profile)


def _quad(weights: Array, bits: int) -> Array:
    """Return the words [groups, words] of four channels, weights [4, taps]."""
    if bits == 2:
        fields = (weights + 2) << np.array([[0], [2], [4], [6]])
        octets = fields.sum(axis=0).reshape(-1, 4)
        return np.asarray((octets << np.array([0, 8, 16, 24])).sum(axis=1, keepdims=True))
    fields = np.vstack([weights[:3] + 8, weights[3:] & 15]) << np.array([[0], [4], [8], [12]])
    halves = fields.sum(axis=0).reshape(-1, 4)
    return pair(halves[:, :2], halves[:, 2:])


def _stream(plan: _Plan, quads: int, channel_step: int) -> Array:
    """Pack everything that the inner kernel reads, `quads` times four channels at a time."""
    channels, r = plan.matrix.shape[0], plan.requant
    bias = plan.bias << r.scale_log2
    words: list[Array] = []
    for first in range(0, channels, 4 * quads):
        # Channels that are missing repeat the last one and store the same byte.
        c = np.minimum(np.arange(first, first + 4 * quads), channels - 1)
        parts = [_quad(plan.matrix[q], plan.bits) for q in c.reshape(quads, 4)]
        words.append(np.stack(parts, axis=2).ravel())
        words.append(np.stack([bias[c], r.multiplier[c], r.addend[c], r.right[c]], axis=1).ravel())
        words.append(c * channel_step)
    return wrap32(np.concatenate(words)).astype(np.int32)


def _conv_params(site: Site) -> ConvParams:
    plan = _conv(site)
    assert plan is not None
    call, g, out = site.call, window.convolution(site.call), site.call.output
    in_c, layout = call.input().shape[3], site.output_layout
    pixel, channel = (1, layout.plane_bytes(out)) if layout.planar else (out.shape[3], 1)
    rows = g.out_h if window.is_one_row(site) else 1
    low, high = window.clamp_range(call.attributes.activation, out)
    stream = _stream(plan, 1, channel)
    return ConvParams(
        rows * g.out_w, g.kernel_h, g.kernel_w * in_c, plan.matrix.shape[1] // g.kernel_h,
        g.stride_w * in_c, g.pad_left * in_c, rows * g.in_w * in_c, call.input().zero_point, pixel,
        (out.shape[3] - 1) * channel + (rows * g.out_w - 1) * pixel + 1,
        int((low, high) != (-128, 127)), low, high,
        plan.groups, -(-plan.groups // CHUNK), stream, stream.size,
    )  # fmt: skip


def _dense_params(site: Site) -> DenseParams:
    plan = _dense(site)
    assert plan is not None
    p = _scales(site.call, site)
    clamp, stream = (p.clamp_min, p.clamp_max), _stream(plan, 2, 1)
    return DenseParams(
        p.batches, p.in_c, p.out_c, int(clamp != (-128, 127)), *clamp,
        plan.groups, -(-plan.groups // CHUNK), stream, stream.size,
    )  # fmt: skip


def _conv_scratch(site: Site) -> int:
    """What sums start with, two widened pixels, one row of two patches."""
    plan = _conv(site)
    assert plan is not None
    taps = int(plan.matrix.shape[1])
    return 32 + 4 * taps + 2 * taps // window.convolution(site.call).kernel_h


def _dense_scratch(site: Site) -> int:
    """What sums start with, and the widened vector."""
    plan = _dense(site)
    assert plan is not None
    return 32 + 2 * int(plan.matrix.shape[1])


def _constants(plan: _Plan | None, site: Site) -> dict[str, int]:
    assert plan is not None
    relu = not plan.once and site.call.output.zero_point == -128
    return {"bits": plan.bits, "once": int(plan.once), "relu": int(relu)}


CONV_2D = (
    Kernel(
        "dsp/conv_2d_int4", "td_conv_2d_int4_dsp", lambda site: _conv(site) is not None,
        _conv_params, lambda site: _constants(_conv(site), site), _conv_scratch,
        whole=window.is_one_row, planar_output=True, by_rows=True,
    ),
)  # fmt: skip
FULLY_CONNECTED = (
    Kernel(
        "dsp/fully_connected_int4", "td_fully_connected_int4_dsp",
        lambda site: _dense(site) is not None, _dense_params,
        lambda site: _constants(_dense(site), site), _dense_scratch,
    ),
)  # fmt: skip
