"""Turn convolutions with dense filters into one matrix-multiplication kernel for SMLAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _window as window
from tinydeploy.ops._dsp.compact import Compact, compact_form
from tinydeploy.ops._dsp.requant import Requant, bound_of, is_dsp, pair, requant
from tinydeploy.ops.base import Kernel, Site, once_per_site

Array = NDArray[Any]

LINES = 256  # bytes of narrow rows that are copied with their padding


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/conv_2d.c.j2."""

    band: int
    kernel_h: int
    stride_h: int
    zero_point: int
    lines: int
    tiles: int  # tiles per call of the inner kernel
    skip: int  # groups that the unrolled loop has too many
    clamp: int
    clamp_min: int
    clamp_max: int
    out_w: int
    segment: int  # bytes of one row of a patch
    pitch: int  # bytes from row to row in the order of the weights
    row_groups: int  # groups of four in a row, 0 where rows are no whole groups
    step: int  # bytes between the patches of neighbouring pixels
    pad: int  # bytes of padding left of a row
    row: int  # bytes of an input row, with its padding if it is copied
    line_pad: int
    line_bytes: int
    out_pixel: int
    out_row: int  # bytes of an output row, for clamping
    groups: int
    patch: int  # bytes
    base: int  # what the addends of all channels share
    channel: int  # bytes from one channel of an output to the next
    first: int  # offset of the first channel computed, below 0 where it is none
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
    pairs: tuple[tuple[int, int], ...]  # channels that are computed together, -1 for none

    @property
    def pixels(self) -> int:
        """Pixels of one tile."""
        return 2 if self.wide else 3

    @property
    def chunk(self) -> int:
        """Groups that the unrolled loop holds."""
        return 16 if self.wide else 8

    @property
    def ordered(self) -> bool:
        """Tell whether channels come in order, so that their outputs need no offsets."""
        return self.pairs == _in_order(self.matrix.shape[0])

    @property
    def groups(self) -> int:
        """Groups of four taps."""
        return -(-int(self.matrix.shape[1]) // 4)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Hold how the rows of an image are walked through; sizes in bytes where nothing is said."""

    width: int  # pixels of a row
    row: int
    pad: int
    lines: int  # rows copied with their padding, 0 for none
    tiles: int
    patch: int


@once_per_site
def _plan(site: Site) -> _Plan | None:
    call = site.call
    g = window.convolution(call)
    weights = call.input(1).data
    assert weights is not None
    if not is_dsp(site) or site.optimize == "size" or call.output.elements == 0:
        return None
    if g.dilation_h != 1 or g.dilation_w != 1 or max(g.kernel_h, g.stride_h) >= 2**15:
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
    single = site.profile.rounds_once(call.node.op)

    def form(wide: bool) -> Requant | None:
        return requant(matrix, bias, multiplier, shift, call.output.zero_point, single, wide)

    # The paired-byte form needs sums below 2^23 and offsets of 16 bits.
    how, pairs = form(wide=False), _pairs(matrix)
    if how is None:
        return None
    keep = np.where(how.constant, 0, 1)
    wide = site.optimize == "speed" or pairs is None
    wide = wide or bool(bound_of(matrix * keep[:, None], bias * keep).max() >= 2**23)
    if wide or (filters - 1) * _channel_step(site) >= 2**16:
        wide, pairs, how = True, _in_order(filters), form(wide=True)
    if how is None or pairs is None or (single and not how.uniform):
        return None
    # Rows of whole words need no gathering (about 150 instructions per tile), but more groups.
    segment = g.kernel_w * in_c
    pitch = -(-segment // 4) * 4
    groups = -(-g.kernel_h * segment // 4)
    if (g.kernel_h * pitch // 4 - groups) * filters * 5 > 200:
        pitch = segment
    by_row = (matrix * keep[:, None]).reshape(filters, g.kernel_h, segment)
    padded = np.pad(by_row, ((0, 0), (0, 0), (0, pitch - segment)))
    return _Plan(
        padded.reshape(filters, -1), bias * keep, how, wide, g.kernel_h, pitch, pairs
    )  # fmt: skip


def _in_order(channels: int) -> tuple[tuple[int, int], ...]:
    return tuple((c, c + 1) for c in range(-(channels % 2), channels - 1, 2))


def _pairs(matrix: Array) -> tuple[tuple[int, int], ...] | None:
    """Pair channels so that 256 * w1 + w0 fits 16 bits, weights of -128 first; None if none do."""
    channels = matrix.shape[0]
    deep = matrix.min(axis=1) < -127
    order = [*np.flatnonzero(deep), *np.flatnonzero(~deep)]
    half = channels // 2
    lows, highs = order[:half], order[half:]
    pairs = tuple((int(a), int(b)) for a, b in zip(lows, highs, strict=False))
    if not deep.any():
        return _in_order(channels)
    if any((256 * matrix[b] + matrix[a]).min() < -(2**15) for a, b in pairs):
        return None
    return (*pairs, (-1, int(highs[-1]))) if channels % 2 else pairs


def _stream(plan: _Plan, channel_step: int, compact: Compact) -> Array:
    """Pack everything that the inner kernel reads, channel pair after channel pair."""
    channels, taps = plan.matrix.shape
    r = plan.requant
    scale = np.int64(1) << r.scale_log2
    # Channel -1 stands for one that is missing: its results are overwritten.
    matrix = np.zeros((channels + 1, plan.groups * 4), np.int64)
    matrix[:channels, :taps] = plan.matrix * (scale[:, None] if plan.wide else 1)
    bias = np.append(plan.bias * scale if plan.wide else compact.bias, 0)
    words: list[Array] = []
    for low, c1 in plan.pairs:
        c0 = low if low >= 0 else c1
        w0, w1 = (matrix[k].reshape(-1, 4) for k in (low, c1))
        if plan.wide:
            words.append(np.array([bias[low], bias[low], bias[c1], bias[c1]]))
            lanes = [pair(w[:, k], w[:, k + 2]) for k in (0, 1) for w in (w0, w1)]
            words.append(np.stack(lanes, axis=1).ravel())
            tail = [r.multiplier[c0], r.addend[c0], r.multiplier[c1], r.addend[c1],
                    c0 * channel_step, c1 * channel_step]  # fmt: skip
            if not r.uniform:
                tail += [r.right[c0], r.right[c1]]
        else:
            shifts = int(compact.low[c0]), int(compact.high[c1])
            words.append(np.array([256 * bias[low] + shifts[0], 256 * bias[c1] + shifts[1]]))
            h = 256 * w1 + w0
            words.append(np.stack([pair(h[:, k], h[:, k + 2]) for k in (0, 1)], axis=1).ravel())
            tail = [compact.multiplier[c0], compact.multiplier[c1]]
            if not plan.ordered:
                tail.append(c1 * channel_step << 16 | c0 * channel_step)
        words.append(np.array(tail))
    return wrap32(np.concatenate(words)).astype(np.int32)


def _streamed(site: Site) -> bool:
    return site.output_layout.ring > 0


def _channel_step(site: Site) -> int:
    """Return the bytes from one channel of an output pixel to the next."""
    layout = site.output_layout
    return layout.plane_bytes(site.call.output) if layout.planar else 1


def _shape(site: Site, plan: _Plan, band: int) -> _Shape:
    call, g = site.call, window.convolution(site.call)
    in_c, whole = call.input().shape[3], window.is_one_row(site)
    width = g.out_h * g.out_w if whole else g.out_w
    row = (g.in_h * g.in_w if whole else g.in_w) * in_c
    # Tiles that are widened before the inner kernel runs: enough to share its overhead.
    size = plan.groups * 8 * plan.pixels
    most = max(1, min((128 if _streamed(site) else 512) // size, 8))
    tiles = min(-(-width * band // plan.pixels), most)
    pad, words = g.pad_left * in_c, plan.pitch if plan.pitch % 4 == 0 else 0
    if not words:
        return _Shape(width, row, pad, 0, tiles, plan.groups * 4 + 4)
    last = (width - 1) * g.stride_w * in_c + words
    below = (g.out_h - 1) * g.stride_h + g.kernel_h - g.pad_top
    if pad == g.pad_top == 0 and below <= g.in_h and last <= row:
        return _Shape(width, row, pad, 0, tiles, 0)
    lines = g.kernel_h + (band - 1) * g.stride_h
    padded = -(-max(pad + row, last) // 4) * 4
    if lines * (padded + 4) <= LINES and not whole:
        return _Shape(width, padded, 0, lines, tiles, 0)
    return _Shape(width, row, pad, 0, tiles, words)


def _params(band: int) -> Any:
    def params(site: Site) -> Params:
        plan = _plan(site)
        assert plan is not None
        call, g = site.call, window.convolution(site.call)
        in_c, layout, out = call.input().shape[3], site.output_layout, call.output
        channel = _channel_step(site)
        pixel = 1 if layout.planar else out.shape[3]
        rows = 1 if window.is_one_row(site) else band
        s = _shape(site, plan, rows)
        low, high = window.clamp_range(call.attributes.activation, out)
        compact = compact_form(plan.requant, plan.bias, out.zero_point, False)
        stream = _stream(plan, channel, compact)
        return Params(
            rows, g.kernel_h, g.stride_h, call.input().zero_point, s.lines, s.tiles,
            -plan.groups % plan.chunk, int((low, high) != (-128, 127)), low, high,
            s.width, g.kernel_w * in_c, plan.pitch,
            plan.pitch // 4 if plan.pitch % 4 == 0 else 0,
            g.stride_w * in_c, s.pad, s.row, g.pad_left * in_c, g.in_w * in_c,
            pixel, (out.shape[3] - 1) * channel + (s.width - 1) * pixel + 1,
            plan.groups, s.patch, compact.base, channel, -channel * (out.shape[3] % 2),
            stream, stream.size,
        )  # fmt: skip

    return params


def _scratch(band: int) -> Any:
    def scratch(site: Site) -> int:
        plan = _plan(site)
        assert plan is not None
        s = _shape(site, plan, 1 if window.is_one_row(site) else band)
        # Widened tiles, addresses of their outputs, and a patch per pixel or padded rows.
        tiles = s.tiles * plan.pixels * (plan.groups * 8 + 4)
        return tiles + (s.lines * (s.row + 4) if s.lines else plan.pixels * s.patch)

    return scratch


def _constants(band: int) -> Any:
    def constants(site: Site) -> dict[str, int]:
        plan = _plan(site)
        assert plan is not None
        alone = _streamed(site) and band == 1
        return {
            "bits": 16 if plan.wide else 8,
            "uniform": plan.requant.uniform,
            "looped": int(plan.wide and plan.groups > plan.chunk),
            "ordered": int(plan.ordered),
            "relu": int(not plan.requant.uniform and site.call.output.zero_point == -128),
            "tail": site.call.output.shape[2] % plan.pixels if alone else 0,
        }

    return constants


def _kernel(band: int) -> Kernel:
    def accepts(site: Site) -> bool:
        plan = _plan(site)
        if plan is None:
            return False
        width = window.convolution(site.call).out_w
        if band == 1:
            return True
        # Row by row, bands make rings larger.
        alone = _streamed(site) and width >= plan.pixels and site.pace != "wide"
        return width % plan.pixels != 0 and band == plan.pixels and not alone

    return Kernel(
        "dsp/conv_2d", "td_conv_2d_dsp", accepts, _params(band), _constants(band), _scratch(band),
        band=band, whole=window.is_one_row, planar_output=True, by_rows=True,
    )  # fmt: skip


# Depthwise filters over one channel are dense filters.
# Tiles of 2 (3) pixels run over 2 (3) rows where a row alone would leave pixels over.
CONV_2D = (_kernel(2), _kernel(3), _kernel(1))
DEPTHWISE_CONV_2D = CONV_2D
