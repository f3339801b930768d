"""Turn convolutions into matrix products for the kernels of MVE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _window as window
from tinydeploy.ops._mve import common
from tinydeploy.ops.base import Array, Kernel, Site

ISA = "armv8.1-m-mve"
# Beyond this many blocks of 16 along K the kernel loops over them (56 bytes of code per block).
UNROLLED = {"speed": 40, "balanced": 16}


@dataclass(frozen=True, slots=True)
class Product:
    """Hold what a convolution is as a matrix product, with everything folded that can be."""

    weights: Array  # int8 [out_c, kernel_h, kernel_w, in_c]
    bias: Array  # int32, input zero point folded in
    multiplier: Array
    shift: Array
    zero: int
    low: int
    high: int
    mode: int

    @property
    def clamp(self) -> int:
        return int((self.low, self.high) != common.INT8)

    @property
    def depth(self) -> int:
        return int(self.weights[0].size)

    def channels(self, indices: Array, runs: int) -> Array:
        """Return the stream of some output channels, K in so many runs."""
        w = self.weights[indices].reshape(len(indices), runs, -1)
        return common.stream(
            w, self.bias[indices], self.multiplier[indices], self.shift[indices], self.mode
        )

    def groups(self, runs: int) -> tuple[int, int, Array, Array]:
        """Return (whole groups of four channels, channels left over, stream, last stream).

        The last group is the last four channels, some of which the group before has too; with
        fewer than four channels altogether it repeats them.
        """
        count = len(self.weights)
        whole, left = divmod(count, 4)
        first = self.channels(np.arange(whole * 4), runs) if whole else np.zeros(1, np.int32)
        if not left:
            return whole, 0, first, np.zeros(1, np.int32)
        indices = np.arange(4) % count if count < 4 else np.arange(count - 4, count)
        return whole, left, first, self.channels(indices, runs)


def product(site: Site) -> Product:
    """Return a convolution's weights and scales; depthwise ones as filters of a single channel."""
    call = site.call
    inp, filters, output = call.input(), call.input(1), call.output
    assert filters.data is not None
    weights = filters.data
    if call.node.op == "DEPTHWISE_CONV_2D":
        weights = weights.transpose(3, 1, 2, 0)
    multiplier, shift = window.channel_multipliers(inp, filters, output, len(weights))
    low, high = window.clamp_range(call.attributes.activation, output)
    mode = common.rounding_mode(
        shift, output.zero_point, low, site.profile.rounds_once(call.node.op)
    )
    bias = common.folded_bias(weights, window.bias_of(call), inp.zero_point)
    return Product(weights, bias, multiplier, shift, output.zero_point, low, high, mode)


def reachable(p: Product) -> bool:
    """Tell whether shifting left before a single rounding cannot overflow."""
    if p.mode != common.ONCE_LEFT:
        return True
    return bool(common.bound(p.weights, p.bias) << max(0, int(p.shift.max()) + 2) < 2**31)


@dataclass(frozen=True, slots=True)
class PointwiseParams:
    """Mirror the parameters of templates/ops/mve/conv_1x1.c.j2."""

    pixels: int
    along: int
    x_step: int
    x_row: int
    out_step: int
    group_step: int
    unit: int
    groups: int
    lanes: int
    last: int
    tail: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    stream: Array
    last_stream: Array


def output_units(site: Site) -> tuple[int, int]:
    """Return bytes between pixels and between channels of the output."""
    layout, output = site.output_layout, site.call.output
    return (1, layout.plane_bytes(output)) if layout.planar else (output.shape[-1], 1)


def scatter_fits(site: Site) -> bool:
    """Tell whether 16-bit offsets reach from one output row to the next, in any layout."""
    return _reach(site) < 65536


def _reach(site: Site) -> int:
    _, _, width, channels = site.call.output.shape
    return (width + 16) * (channels + 4)


def far(site: Site) -> int:
    """Tell whether neighbouring rows of the output are too far apart for 16-bit offsets."""
    output, layout = site.call.output, site.output_layout
    if not layout.ring:
        return 0
    return int((layout.ring - 1) * layout.row_bytes(output) + _reach(site) >= 65536)


def _pairs(site: Site, band: int) -> bool:
    """Tell whether pixels should be paired along one row (a band of 1), or in two rows.

    A row at a time needs less memory where rows are streamed, and more calls. Where the width is
    odd it costs a pixel per row.
    """
    streamed = site.output_layout.ring > 0
    even = site.call.output.shape[2] % 2 == 0
    return even if band == 1 else not (streamed and even)


def _pointwise(site: Site) -> bool:
    call = site.call
    if site.isa != ISA or site.optimize == "size" or call.node.op != "CONV_2D":
        return False
    g = window.convolution(call)
    if (g.kernel_h, g.kernel_w, g.pad_top, g.pad_left) != (1, 1, 0, 0):
        return False
    if (g.out_h - 1) * g.stride_h >= g.in_h or (g.out_w - 1) * g.stride_w >= g.in_w:
        return False
    if call.input().shape[3] != call.input(1).shape[3] or g.dilation_h != 1:
        return False
    return scatter_fits(site) and reachable(product(site))


def _whole(site: Site) -> bool:
    g = window.convolution(site.call)
    plain = site.input_layout().plain and site.output_layout.plain
    return plain and (g.stride_h, g.stride_w) == (1, 1)


def _pointwise_params(along: bool, site: Site) -> PointwiseParams:
    g, p = window.convolution(site.call), product(site)
    whole, left, first, last = p.groups(1)
    pixel, unit = output_units(site)
    count = len(p.weights)
    return PointwiseParams(
        g.out_h * g.out_w if _whole(site) else g.out_w, int(along or _whole(site)),
        g.stride_w * p.depth, g.stride_h, pixel, 4 * unit, unit, whole, left,
        max(0, count - 4) * unit, (p.depth - 1) % 16 + 1, p.zero, p.low, p.high, first, last,
    )  # fmt: skip


def blocks_of(site: Site, p: Product, runs: int, length: int) -> dict[str, int]:
    """Return how the kernel goes over K: `runs` times `blocks` of 16, then `rest` more."""
    blocks, rest = -(-length // 16), 0
    looped = runs * blocks > UNROLLED["speed" if site.optimize == "speed" else "balanced"]
    if looped and runs == 1:
        runs, blocks, rest = blocks // 8, 8, blocks % 8
        if rest == 0 and length % 16:
            runs, rest = runs - 1, 8  # the tail must not be in the loop
    return {"runs": runs, "blocks": blocks, "rest": rest, "looped": int(looped)}


def _pointwise_constants(along: bool, site: Site) -> dict[str, int]:
    p = product(site)
    return {
        **blocks_of(site, p, 1, p.depth),
        # Depths that are multiples of 16 share the predicated kernel unless speed is wanted.
        "tail": int(p.depth % 16 != 0 or site.optimize != "speed"),
        "mode": p.mode,
        "clamp": p.clamp,
        "far": 0 if along else far(site),
    }


def _pointwise_kernel(band: int) -> Kernel:
    """Return the kernel that pairs pixels along one row, or those of two rows."""
    along = band == 1
    return Kernel(
        "mve/conv_1x1", "td_conv_1x1_mve",
        lambda site: _pairs(site, band) and _pointwise(site),
        lambda site: _pointwise_params(along, site),
        lambda site: _pointwise_constants(along, site),
        band=band, whole=_whole, planar_output=True, by_rows=True,
    )  # fmt: skip


POINTWISE = (_pointwise_kernel(2), _pointwise_kernel(1))

CHUNK = 8  # pixels of a row whose windows are gathered at a time; twice that along one row
# Bytes of input rows that a streamed convolution tries to do with: read in place, gathered from.
STREAMED_ROWS, STREAMED_SOURCE = 1024, 640


@dataclass(frozen=True, slots=True)
class WindowParams:
    """Mirror the parameters of templates/ops/mve/conv_2d.c.j2."""

    pixels: int
    in_bytes: int
    left: int
    zero: int
    x_step: int
    x_row: int
    out_step: int
    group_step: int
    unit: int
    groups: int
    lanes: int
    last: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    stream: Array
    last_stream: Array


def _pitch(site: Site, piece: int) -> int:
    """Return the bytes in scratch memory of the input columns of so many output pixels."""
    g = window.convolution(site.call)
    columns = (piece - 1) * g.stride_w + g.kernel_w
    return -(-columns * site.call.input().shape[3] // 4) * 4


def _rows_scratch(site: Site, band: int, piece: int) -> int:
    g = window.convolution(site.call)
    return (g.kernel_h + (band - 1) * g.stride_h) * _pitch(site, piece)


def _piece(site: Site, band: int, limit: int) -> int:
    """Return how many output pixels of a row are worked on at a time.

    Layer by layer a whole row; streamed, where scratch memory counts, a part of it.
    """
    width = window.convolution(site.call).out_w
    if not site.output_layout.ring:
        return width
    fitting = [n for n in (64, 32, 16, 8) if _rows_scratch(site, band, n) <= limit]
    return min(width, *fitting[:1] or [4])


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Say how the kernel goes over a row and over K (`steps`, see blocks_of)."""

    in_place: bool
    piece: int
    pitch: int
    steps: dict[str, int]


def _plan(site: Site, p: Product, band: int) -> WindowPlan:
    """Return whether windows are read in place, and how the kernel goes over rows and K.

    In place each of the window's rows is padded to 16 values; gathered, all of K is once. The
    costs are instructions per pair of pixels.
    """
    kernel_h, run = p.weights.shape[1], p.depth // p.weights.shape[1]
    groups, blocks = -(-len(p.weights) // 4), -(-run // 16)
    piece = _piece(site, band, STREAMED_ROWS)
    pitch = _pitch(site, piece)
    total = -(-p.depth // 16)
    in_place = groups * (14 * kernel_h * blocks + 2 * kernel_h)
    gathered = groups * ((12 if total <= 2 else 14) * total + 1) + 2 * (6 + 4 * kernel_h * blocks)
    if in_place <= gathered and abs(pitch - 16 * blocks) < 4096:
        steps = blocks_of(site, p, kernel_h, run)
        if not steps["rest"] or kernel_h == 1:
            return WindowPlan(True, piece, pitch, steps)
    piece = _piece(site, band, STREAMED_SOURCE)
    return WindowPlan(False, piece, _pitch(site, piece), blocks_of(site, p, 1, p.depth))


def _window(site: Site) -> bool:
    call = site.call
    if site.isa != ISA or site.optimize == "size":
        return False
    g = window.convolution(call)
    single = call.input().shape[3] == 1
    if call.node.op == "CONV_2D":
        if call.input().shape[3] != call.input(1).shape[3]:
            return False
    elif not single:
        return False
    if (g.dilation_h, g.dilation_w) != (1, 1) or g.kernel_h * g.kernel_w > 256:
        return False
    return scatter_fits(site) and reachable(product(site))


def _window_params(band: int, site: Site) -> WindowParams:
    g, p = window.convolution(site.call), product(site)
    plan, channels = _plan(site, p, band), site.call.input().shape[3]
    whole, rest, first, last = p.groups(g.kernel_h if plan.in_place else 1)
    pixel, unit = output_units(site)
    return WindowParams(
        g.out_w, g.in_w * channels, g.pad_left * channels, site.call.input().zero_point,
        g.stride_w * channels, g.stride_h * plan.pitch,
        pixel, 4 * unit, unit, whole, rest, max(0, len(p.weights) - 4) * unit,
        p.zero, p.low, p.high, first, last,
    )  # fmt: skip


def _window_constants(band: int, site: Site) -> dict[str, int]:
    g, p = window.convolution(site.call), product(site)
    plan = _plan(site, p, band)
    return {
        "direct": int(plan.in_place), **plan.steps, "mode": p.mode, "clamp": p.clamp,
        "window_h": g.kernel_h, "run": p.depth // g.kernel_h, "stride": g.stride_h,
        "pitch": plan.pitch, "patch": _patch(p), "piece": plan.piece, "chunk": _chunk(site, band),
        "along": int(band == 1), "far": 0 if band == 1 else far(site),
    }  # fmt: skip


def _patch(p: Product) -> int:
    return -(-p.depth // 16) * 16


def _chunk(site: Site, band: int) -> int:
    return CHUNK if band == 2 or site.output_layout.ring else 2 * CHUNK


def _window_scratch(band: int, site: Site) -> int:
    """Return the bytes of input rows, and of windows gathered from them."""
    p = product(site)
    plan = _plan(site, p, band)
    rows = _rows_scratch(site, band, plan.piece)
    if plan.in_place:
        return rows + 16  # the last load of a run is of a whole vector
    patch, kernel_h = _patch(p), int(p.weights.shape[1])
    run = p.depth // kernel_h
    # The last copy of a window is of whole vectors, or a word.
    end = (kernel_h - 1) * run + (4 if run <= 4 else -(-run // 16) * 16)
    return rows + band * _chunk(site, band) * patch + max(0, -(-(end - patch) // 4) * 4)


def _window_kernel(band: int) -> Kernel:
    """Return the kernel that pairs pixels along one row, or those of two rows."""
    return Kernel(
        "mve/conv_2d", "td_conv_2d_mve",
        lambda site: _pairs(site, band) and _window(site),
        lambda site: _window_params(band, site),
        lambda site: _window_constants(band, site),
        lambda site: _window_scratch(band, site),
        band=band, planar_output=True, by_rows=True,
    )  # fmt: skip


WINDOW = (_window_kernel(2), _window_kernel(1))
