"""Turn convolutions with dense filters into one matrix-multiplication kernel for SMLAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.requant import Requant, bound_of, is_dsp, pair, requant
from tinydeploy.ops.base import Kernel, Site

Array = NDArray[Any]

CHUNK = 16  # groups of four weights that the unrolled loop holds


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/conv_2d.c.j2."""

    band: int
    out_w: int
    kernel_h: int
    segment: int  # bytes of one row of a patch
    pitch: int  # bytes from row to row in the order of the weights
    row_groups: int  # groups of four in a row, 0 where rows are no whole groups
    stride_h: int
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
    tiles: int  # tiles per call of the inner kernel
    stream: Array
    stream_end: int  # words


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold a convolution as a matrix [channels, taps] with its folded bias and requantisation."""

    matrix: Array
    bias: Array
    requant: Requant
    wide: bool
    rows: int
    pitch: int

    @property
    def pixels(self) -> int:
        """Pixels of one tile."""
        return 2 if self.wide else 3

    @property
    def groups(self) -> int:
        """Groups of four taps."""
        return -(-int(self.matrix.shape[1]) // 4)


def _plan(site: Site) -> _Plan | None:
    call = site.call
    g = window.convolution(call)
    weights = call.input(1).data
    assert weights is not None
    if not is_dsp(site) or site.optimize == "size" or call.output.elements == 0:
        return None
    if g.dilation_h != 1 or g.dilation_w != 1:
        return None
    filters, in_c = call.output.shape[3], call.input().shape[3]
    if call.node.op == "CONV_2D" and weights.shape[3] == in_c:
        matrix = weights.reshape(filters, -1).astype(np.int64)
    elif call.node.op == "DEPTHWISE_CONV_2D" and in_c == 1:
        matrix = weights.reshape(-1, filters).T.astype(np.int64)
    else:
        return None
    bias = window.bias_of(call) - call.input().zero_point * matrix.sum(axis=1)
    multiplier, shift = window.channel_multipliers(
        call.input(), call.input(1), call.output, filters
    )
    # The paired-byte form needs |w| <= 127 and sums below 2^23.
    wide = site.optimize == "speed" or matrix.min() < -127
    wide = wide or bool(bound_of(matrix, bias).max() >= 2**23)
    how = requant(
        matrix, bias, multiplier, shift, call.output.zero_point,
        site.profile.rounds_once(call.node.op), wide,
    )  # fmt: skip
    if how is None:
        return None
    keep = np.where(how.constant, 0, 1)
    # Rows of whole words need no gathering (about 150 instructions per tile), but more groups.
    segment = g.kernel_w * in_c
    pitch = -(-segment // 4) * 4
    groups = -(-g.kernel_h * segment // 4)
    if (g.kernel_h * pitch // 4 - groups) * filters * 5 > 200:
        pitch = segment
    by_row = (matrix * keep[:, None]).reshape(filters, g.kernel_h, segment)
    padded = np.pad(by_row, ((0, 0), (0, 0), (0, pitch - segment)))
    return _Plan(padded.reshape(filters, -1), bias * keep, how, wide, g.kernel_h, pitch)


def _stream(plan: _Plan, channel_step: int) -> Array:
    """Pack everything that the inner kernel reads, channel pair after channel pair."""
    channels, taps = plan.matrix.shape
    r = plan.requant
    scale = np.int64(1) << r.scale_log2
    matrix = np.zeros((channels + channels % 2, plan.groups * 4), np.int64)
    matrix[:channels, :taps] = plan.matrix * (scale[:, None] if plan.wide else 1)
    bias = plan.bias * scale if plan.wide else plan.bias
    words: list[Array] = []
    for c in range(0, channels, 2):
        # A missing last channel repeats the one before it and stores the same bytes.
        c0, c1 = c, min(c + 1, channels - 1)
        w0, w1 = (matrix[k].reshape(-1, 4) for k in (c0, c1))
        if plan.wide:
            words.append(np.array([bias[c0], bias[c0], bias[c1], bias[c1]]))
            lanes = [pair(w[:, k], w[:, k + 2]) for k in (0, 1) for w in (w0, w1)]
            words.append(np.stack(lanes, axis=1).ravel())
            tail = [r.multiplier[c0], r.addend[c0], r.multiplier[c1], r.addend[c1],
                    c0 * channel_step, c1 * channel_step]  # fmt: skip
            if not r.uniform:
                tail += [r.right[c0], r.right[c1]]
        else:
            both = 256 * bias[c1] + bias[c0]
            words.append(np.array([bias[c0]] * 3 + [both] * 3))
            h = 256 * w1 + w0
            words.append(np.stack([pair(h[:, k], h[:, k + 2]) for k in (0, 1)], axis=1).ravel())
            tail = []
            for c_, lanes_right in ((c0, 0), (c1, 8)):
                log2 = int(r.scale_log2[c_])
                last = int(r.right[c_]) if not r.uniform else abs(lanes_right - log2)
                tail += [r.multiplier[c_], r.addend[c_], last, c_ * channel_step]
        words.append(np.array(tail))
    return wrap32(np.concatenate(words)).astype(np.int32)


def _whole(site: Site) -> bool:
    """A 1x1 convolution of stride 1 over plain tensors is one long row."""
    g = window.convolution(site.call)
    return (
        (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_top, g.pad_left) == (1,) * 4 + (0, 0)
        and (g.in_h, g.in_w) == (g.out_h, g.out_w)
        and site.output_layout.plain
        and site.input_layout(0).plain
    )


def _tiles(plan: _Plan, pixels: int) -> int:
    """Tiles that are widened before the inner kernel runs: enough to share its overhead."""
    size = plan.groups * 8 * plan.pixels
    return max(1, min(-(-pixels // plan.pixels), 512 // size, 8))


def _shape(site: Site, plan: _Plan, band: int) -> tuple[int, int]:
    """Return (pixels of a row, tiles per inner call)."""
    g = window.convolution(site.call)
    width = g.out_h * g.out_w if _whole(site) else g.out_w
    return width, _tiles(plan, width * band)


def _params(band: int) -> Any:
    def params(site: Site) -> Params:
        plan = _plan(site)
        assert plan is not None
        call, g = site.call, window.convolution(site.call)
        in_c, layout, out = call.input().shape[3], site.output_layout, call.output
        plane = layout.plane_bytes(out)
        pixel, channel = (1, plane) if layout.planar else (out.shape[3], 1)
        width, tiles = _shape(site, plan, 1 if _whole(site) else band)
        in_w = g.in_h * g.in_w if _whole(site) else g.in_w
        low, high = window.clamp_range(call.attributes.activation, out)
        stream = _stream(plan, channel)
        return Params(
            1 if _whole(site) else band, width, g.kernel_h, g.kernel_w * in_c, plan.pitch,
            plan.pitch // 4 if plan.pitch % 4 == 0 else 0,
            g.stride_h, g.stride_w * in_c, g.pad_left * in_c, in_w * in_c,
            call.input().zero_point, pixel,
            (out.shape[3] - 1) * channel + (width - 1) * pixel + 1,
            int((low, high) != (-128, 127)), low, high,
            plan.groups, -(-plan.groups // CHUNK), tiles, stream, stream.size,
        )  # fmt: skip

    return params


def _scratch(band: int) -> Any:
    def scratch(site: Site) -> int:
        plan = _plan(site)
        assert plan is not None
        _, tiles = _shape(site, plan, 1 if _whole(site) else band)
        # Widened tiles, addresses of their outputs, and one patch of bytes per pixel.
        patch = plan.groups * 4 + 4
        return tiles * plan.pixels * (plan.groups * 8 + 4) + plan.pixels * patch

    return scratch


def _constants(site: Site) -> dict[str, int]:
    plan = _plan(site)
    assert plan is not None
    return {
        "bits": 16 if plan.wide else 8,
        "uniform": plan.requant.uniform,
        "looped": int(plan.groups > CHUNK),
        "relu": int(not plan.requant.uniform and site.call.output.zero_point == -128),
    }


def _kernel(band: int) -> Kernel:
    def accepts(site: Site) -> bool:
        plan = _plan(site)
        if plan is None:
            return False
        g = window.convolution(site.call)
        return band == 1 or (g.out_w % plan.pixels != 0 and band == plan.pixels)

    return Kernel(
        "dsp/conv_2d", "td_conv_2d_dsp", accepts, _params(band), _constants, _scratch(band),
        band=band, whole=_whole, planar_output=True, by_rows=True,
    )  # fmt: skip


# Depthwise filters over one channel are dense filters.
# Tiles of 2 (3) pixels run over 2 (3) rows where a row alone would leave pixels over.
CONV_2D = (_kernel(2), _kernel(3), _kernel(1))
DEPTHWISE_CONV_2D = CONV_2D
