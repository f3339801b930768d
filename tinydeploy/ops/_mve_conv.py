"""Turn convolutions into matrix products for the kernels of MVE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops import _mve_common as common
from tinydeploy.ops import _window as window
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
    """Return a convolution as a matrix product; a depthwise one must read a single channel."""
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


def _reachable(p: Product) -> bool:
    """Tell whether shifting left before a single rounding cannot overflow."""
    if p.mode != common.ONCE_LEFT:
        return True
    return bool(common.bound(p.weights, p.bias) << max(0, int(p.shift.max()) + 2) < 2**31)


@dataclass(frozen=True, slots=True)
class PointwiseParams:
    """Mirror the parameters of templates/ops/conv_1x1_mve.c.j2."""

    pixels: int
    whole: int
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


def _scatter_fits(site: Site, row: bool) -> bool:
    """Tell whether 16-bit offsets reach from one output row to the next, in any layout."""
    output = site.call.output
    size = (output.shape[-2] + 16) * output.shape[-1] if row else output.shape[-1]
    return size + 4 * (output.shape[-2] + 16 if row else 1) < 65536


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
    return _scatter_fits(site, True) and _reachable(product(site))


def _whole(site: Site) -> bool:
    g = window.convolution(site.call)
    plain = site.input_layout().plain and site.output_layout.plain
    return plain and (g.stride_h, g.stride_w) == (1, 1)


def pointwise_params(site: Site) -> PointwiseParams:
    g, p = window.convolution(site.call), product(site)
    whole, left, first, last = p.groups(1)
    pixel, unit = output_units(site)
    count = len(p.weights)
    return PointwiseParams(
        g.out_h * g.out_w if _whole(site) else g.out_w, int(_whole(site)),
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


def pointwise_constants(site: Site) -> dict[str, int]:
    p = product(site)
    return {
        **blocks_of(site, p, 1, p.depth),
        "tail": int(p.depth % 16 != 0),
        "mode": p.mode,
        "clamp": p.clamp,
    }


POINTWISE = Kernel(
    "conv_1x1_mve", "td_conv_1x1_mve", _pointwise, pointwise_params, pointwise_constants,
    band=2, whole=_whole, planar_output=True,
)  # fmt: skip
