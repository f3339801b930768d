"""Offer the convolution for RV32IM: tiles of 3 pixels x 4 channels on two-field words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tinydeploy.ir import Tensor
from tinydeploy.ops import _window as window
from tinydeploy.ops._rv32 import pack
from tinydeploy.ops._weights import pack as pack_fields
from tinydeploy.ops._weights import weight_bits
from tinydeploy.ops.base import Array, Kernel, Site, once_per_site

GROUP = 4  # output channels of a tile
_K_BYTES, _K_BYTES_2 = 17 * 4, 12 * 4  # machine code of one k for 3 and for 2 pixels
BAND = 3  # rows of output at a time: a tile is then a column of them
_SHORT_CHUNK = 8  # terms that the unrolled loops hold where weights are not widened in flash


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_conv_2d_rv32_params."""

    pixels: int
    pixel_pitch: int
    out_c: int
    groups: int
    rows: int
    row_bytes: int
    left: int
    row_pitch: int
    band: int
    row_step: int
    in_zero: int
    clamp_min: int
    clamp_max: int
    signed_: int
    skip: int
    scratch_rows: int
    nudge: int
    half: int
    heads: Array  # int32 [groups][4 starts + 4 x (multiplier, addend, shift)], see tables
    stream: Array  # int32, two-field words with headers; packed [groups][k][4] when not wide
    sizes: Array  # uint16: words of each group's stream; int8 chunk lengths when not wide


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold what accepts, params and scratch agree on."""

    direct: bool  # pixels are read where they are
    whole: bool
    pitch: int  # bytes of a copied row
    band: int
    stride_h: int
    first: int  # columns from here on ...
    inner: int  # ... so many have their windows inside the image
    segments: list[int]
    skip: int  # bytes between the end of a segment and the next one
    starts: Array
    scale: pack.Scaling
    weights: Array  # [out_c, k]


@once_per_site
def plan_of(site: Site) -> Plan | None:
    from tinydeploy.ops.conv_2d import params as portable

    call = site.call
    p, g = portable(call, site.profile), window.convolution(call)
    if p.groups != 1 or not p.out_w or not g.out_h or p.in_c == 0:
        return None
    if g.dilation_w != 1 and g.kernel_w != 1:
        return None
    direct = g.kernel_h == g.kernel_w == 1 and g.pad_left == 0 and g.pad_top == 0
    direct = direct and (g.out_w - 1) * g.stride_w < g.in_w and (g.out_h - 1) * g.stride_h < g.in_h
    whole = (
        direct
        and g.stride_h == g.stride_w == 1
        and (g.out_h, g.out_w) == (g.in_h, g.in_w)
        and site.input_layout().plain
        and site.output_layout.plain
    )
    columns = max((g.out_w - 1) * g.stride_w + g.kernel_w, g.pad_left + g.in_w)
    pitch = -(-columns * p.in_c // 4) * 4
    run = g.kernel_w * p.in_c
    if not direct and (pitch + run > 32000 or g.in_w * p.in_c == 0):
        return None
    w = p.weights.reshape(p.out_c, -1)
    zero = -p.in_offset
    start = p.bias.astype(np.int64) - zero * w.astype(np.int64).sum(1)
    low, high = pack.bounds(w, start)
    scale = pack.scaling(
        p.multiplier, p.shift, low, high, p.out_offset, (p.clamp_min, p.clamp_max),
        site.profile.rounds_once("CONV_2D"),
    )  # fmt: skip
    if scale is None or w.shape[1] >= 16000:
        return None
    band = BAND if not direct and g.dilation_h == 1 and g.out_h >= BAND else 1
    first = min(-(-g.pad_left // g.stride_w), g.out_w)
    last = (g.in_w - g.kernel_w + g.pad_left) // g.stride_w  # floor
    inner = min(last, g.out_w - 1) - first + 1
    if inner < 2:  # not a tile
        first = inner = 0
    return Plan(
        direct, whole, pitch, band, g.stride_h, first, inner, [run] * g.kernel_h, pitch - run,
        start, scale, w,
    )  # fmt: skip


def accepts(site: Site) -> bool:
    if site.isa != "rv32imac" or site.optimize == "size":
        return False
    return site.call.output.elements > 0 and plan_of(site) is not None


def _padded(array: Array, count: int) -> Array:
    return np.concatenate([array, np.zeros((count - len(array), *array.shape[1:]), array.dtype)])


def firsts(out_c: int) -> list[int]:
    """Return the first channel of each group; the last one may overlap the one before."""
    last = max(out_c - GROUP, 0)
    return [*range(0, last, GROUP), last]


def bits_of(site: Site) -> int:
    """Return the bits that each weight takes in flash where it is not widened there."""
    data = site.call.input(1).data
    return 8 if data is None or site.optimize == "speed" else weight_bits(data)


def _most(site: Site) -> int:
    """Return the terms of the longest chunk: fewer where code is to be small and they are rare."""
    return pack.MAX_CHUNK if site.optimize == "speed" or bits_of(site) < 8 else _SHORT_CHUNK


def tables(site: Site, plan: Plan, streamed: bool) -> tuple[Array, Array, Array]:
    """Return heads, stream and sizes of all groups of output channels.

    In compact form a head is 4 starts and 4 multipliers, the exponents precede the sizes.
    """
    compact = _compact(site, plan)
    wide = site.optimize == "speed"
    out_c = plan.weights.shape[0]
    width = max(out_c, GROUP)
    weights, start = _padded(plan.weights, width), _padded(plan.starts, width)
    scale = plan.scale
    heads, streams, sizes = [], [], []
    for first in firsts(out_c):
        channels = slice(first, first + GROUP)
        w = weights[channels]
        lengths = pack.chunks(w, plan.segments, _most(site))
        heads.append(pack.starts(start[channels], 0))
        columns = (scale.multiplier,) if compact else (scale.multiplier, scale.addend, scale.shift)
        heads.append(np.stack([_padded(a, width)[channels] for a in columns]).T.reshape(-1))
        if compact:
            sizes.append(_padded(scale.exponents, width)[channels])
        ends = set(np.cumsum(plan.segments)[:-1].tolist())
        opens = [int(k) in ends for k in np.cumsum([0, *lengths])[:-1]]
        if wide:
            words = stream(pack.fields(w), lengths, opens, None if streamed else plan.skip)
            streams.append(words)
            sizes.append(np.array([len(words)], np.uint16))
        else:
            streams.append(_fours(w) if bits_of(site) == 8 else _packed(w, bits_of(site)))
            sizes.append(_lengths(lengths, opens, streamed))
    return np.concatenate(heads).astype(np.int32), np.concatenate(streams), np.concatenate(sizes)


def _packed(w: Array, bits: int) -> Array:
    return pack_fields(w.T, bits).view(np.int8)


def _fours(w: Array) -> Array:
    """Return words of the weights of 4 channels [4, k], as pack.fields pairs them, plus 128 each:
    one pair in bytes 0 and 2, the other one in bytes 1 and 3.
    """
    pairs = pack.fields(w).view(np.uint32) + np.uint32(0x00800080)
    return (pairs[:, 0] + (pairs[:, 1] << 8)).astype(np.uint32).view(np.int32)


def _lengths(lengths: list[int], opens: list[bool], streamed: bool) -> Array:
    """Return chunk lengths that 0 ends; where a row of the filter begins, -1 stands between them
    when streamed, else the length is negative.
    """
    parts = []
    for n, opened in zip(lengths, opens, strict=True):
        if opened and streamed:
            parts.append(-1)
        parts.append(-n if opened and not streamed else n)
    return np.array([*parts, 0], np.int8)


def params(site: Site) -> Params:
    from tinydeploy.ops.conv_2d import params as portable

    plan, call = plan_of(site), site.call
    assert plan is not None
    p, g = portable(call, site.profile), window.convolution(call)
    pixels = call.output.elements // p.out_c if plan.whole else p.out_w
    return Params(
        pixels, g.stride_w * p.in_c, p.out_c, len(firsts(p.out_c)),
        _rows(plan, g.kernel_h), g.in_w * p.in_c, g.pad_left * p.in_c, plan.pitch,
        plan.band, plan.stride_h * plan.pitch,
        -p.in_offset, p.clamp_min, p.clamp_max, int(plan.scale.signed), plan.skip,
        _rows_bytes(plan, site), plan.scale.nudge, plan.scale.half,
        *tables(site, plan, streamed=False),
    )  # fmt: skip


def stream(words: Array, lengths: list[int], opens: list[bool], skip: int | None) -> Array:
    """Return the words of chunks, each behind a header, and a header that ends them.

    A header is int16 bytes to advance the pixels, uint16 bytes to the next header, and an int32:
    bytes of code from where the unrolled loop is entered to 4 bytes behind it, 0 after the last.
    From one row of the filter to the next the pixels advance by `skip`; without it, a header with
    no chunk stands between them.
    """
    parts, k = [], 0
    pairs = words.shape[1]
    for n, opened in zip(lengths, opens, strict=True):
        if opened and skip is None:
            parts.append(_header(0, 8, 0))
        advance = n + (skip or 0 if opened else 0)
        parts.append(_header(advance, 8 + 4 * pairs * n, _entry(n)))
        parts.append(words[k : k + n].reshape(-1))
        k += n
    parts.append(_header(0, 0, 0))
    return np.concatenate(parts)


def _entry(n: int) -> int:
    """Return how far before its end the unrolled loops for 3 and 2 pixels are entered, plus 4."""
    return (n - 1) * _K_BYTES + 4 | ((n - 1) * _K_BYTES_2 + 4) << 16


def _header(advance: int, size: int, entry: int) -> Array:
    return np.array([advance & 0xFFFF | size << 16, entry], np.uint32).view(np.int32)


def _rows(plan: Plan, kernel_h: int) -> int:
    """Return the rows of input that are copied at a time."""
    return 0 if plan.direct else (plan.band - 1) * plan.stride_h + kernel_h


def _rows_bytes(plan: Plan, site: Site) -> int:
    """Return the scratch bytes of the copied rows."""
    return _rows(plan, site.call.input(1).shape[1]) * plan.pitch


def wide_bytes(site: Site, plan: Plan, headers: int) -> int:
    """Return the scratch bytes of a group's expanded stream with so many headers added."""
    if site.optimize == "speed":
        return 0
    most = _most_chunks(site.call.input(1), tuple(plan.segments), _most(site))
    return 8 * (1 + headers + int(plan.weights.shape[1]) + most)


@lru_cache(maxsize=1024)
def _most_chunks(weights: Tensor, segments: tuple[int, ...], most: int) -> int:
    """Return the chunks of the group of output channels that has most of them."""
    assert weights.data is not None
    out_c = weights.shape[0]
    padded = _padded(weights.data.reshape(out_c, -1), max(out_c, GROUP))
    return max(len(pack.chunks(padded[f : f + GROUP], list(segments), most)) for f in firsts(out_c))


def scratch(site: Site) -> int:
    """Return the bytes of: copied rows, a group's expanded stream, a tile of narrow output."""
    plan = plan_of(site)
    assert plan is not None
    return _rows_bytes(plan, site) + 16 + wide_bytes(site, plan, 0)


def constants(site: Site) -> dict[str, int]:
    plan = plan_of(site)
    assert plan is not None
    return {
        "wide": int(site.optimize == "speed"),
        "compact": int(_compact(site, plan)),
        "bits": bits_of(site),
    }


def _compact(site: Site, plan: Plan) -> bool:
    return site.optimize != "speed" and plan.scale.compact


def _whole(site: Site) -> bool:
    plan = plan_of(site)
    return plan is not None and plan.whole


def _accepts_band(site: Site) -> bool:
    if not accepts(site):
        return False
    plan = plan_of(site)
    return plan is not None and plan.band == BAND


def packs(kernel: Kernel) -> Kernel:
    """Return the kernel for weights that it keeps packed in flash."""
    return replace(kernel, accepts=lambda site: kernel.accepts(site) and bits_of(site) < 8)


_PLANE = Kernel(
    "rv32/conv_2d",
    "td_conv_2d_rv32",
    accepts=accepts,
    params=params,
    constants=constants,
    scratch=scratch,
    whole=_whole,
)
PLANES = (
    replace(_PLANE, accepts=_accepts_band, band=BAND, whole=lambda site: False),
    _PLANE,
)
