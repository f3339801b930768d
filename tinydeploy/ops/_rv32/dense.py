"""Offer the dense layer for RV32IM: 12 outputs at once on two-field words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops._rv32 import pack
from tinydeploy.ops.base import Array, Kernel, Site

GROUP = 12
_WORTH_IT = 1024  # weights from which on the code is worth its 2 KB
_WIDE_K_BYTES, _NARROW_K_BYTES = 19 * 4, 23 * 4  # machine code of one k of the unrolled loops
_WIDE_FLUSH, _NARROW_FLUSH = 25 * 4, 39 * 4  # machine code behind the last k


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_fully_connected_rv32_params."""

    batches: int
    in_c: int
    out_c: int
    clamp_min: int
    clamp_max: int
    away: int
    starts: Array  # int32 [groups][12]
    heads: Array  # int32 [out_c][multiplier, addend, shift]
    stream: Array  # int32


@dataclass(frozen=True, slots=True)
class _Plan:
    start: Array
    scale: pack.Scaling


def _plan(site: Site) -> _Plan | None:
    from tinydeploy.ops.fully_connected import params as portable

    p = portable(site.call, site.profile)
    start = p.bias.astype(np.int64) + p.in_offset * p.weights.astype(np.int64).sum(1)
    low, high = pack.bounds(p.weights, start)
    scale = pack.scaling(
        p.multiplier, p.shift, low, high, p.out_offset, (p.clamp_min, p.clamp_max),
        bool(p.single_rounding),
    )  # fmt: skip
    return None if scale is None else _Plan(start, scale)


def accepts(site: Site) -> bool:
    if site.isa != "rv32imac" or site.optimize == "size" or not site.call.output.elements:
        return False
    if site.optimize != "speed" and site.call.input(1).elements < _WORTH_IT:
        return False
    return _plan(site) is not None


def params(site: Site) -> Params:
    from tinydeploy.ops.fully_connected import params as portable

    plan = _plan(site)
    assert plan is not None
    p = portable(site.call, site.profile)
    wide = site.optimize == "speed"
    starts, streams = [], []
    for first in range(0, p.out_c, GROUP):
        w = np.zeros((GROUP, p.in_c), np.int64)
        start = np.zeros(GROUP, np.int64)
        rows = p.weights[first : first + GROUP]
        w[: len(rows)], start[: len(rows)] = rows, plan.start[first : first + GROUP]
        if not wide:  # a word's bytes 0 and 2 are one pair, 1 and 3 another
            order = np.arange(GROUP).reshape(-1, 2, 2).swapaxes(1, 2).reshape(-1)
            w, start = w[order], start[order]
        lengths = pack.chunks(w, [p.in_c])
        starts.append(pack.starts(start, len(lengths)))
        streams.append(_stream(w, lengths, wide))
    scale = plan.scale
    return Params(
        p.batches, p.in_c, p.out_c, p.clamp_min, p.clamp_max, int(scale.signed),
        np.concatenate(starts), np.stack([scale.multiplier, scale.addend, scale.shift], axis=1),
        np.concatenate(streams),
    )  # fmt: skip


def _stream(w: Array, lengths: list[int], wide: bool) -> Array:
    """Return a group's words, each chunk behind a header: steps of the input, bytes to the next
    header, offset into the unrolled loop.
    """
    if wide:
        words = pack.fields(w)
    else:
        pairs = pack.fields(w).view(np.uint32).astype(np.int64) + 0x00800080
        words = (pairs[:, 0::2] + (pairs[:, 1::2] << 8)) & 0xFFFFFFFF
    k_bytes = _WIDE_K_BYTES if wide else _NARROW_K_BYTES
    parts, k = [], 0
    for n in lengths:
        size, entry = 4 * n * words.shape[1], (pack.MAX_CHUNK - n) * k_bytes
        parts.append(_header(n, size, entry, wide))
        parts.append(words[k : k + n].reshape(-1).astype(np.int64) & 0xFFFFFFFF)
        k += n
    flush = _WIDE_FLUSH if wide else _NARROW_FLUSH
    parts.append(_header(0, 0, pack.MAX_CHUNK * k_bytes + flush, wide))
    return np.concatenate(parts).astype(np.uint32).view(np.int32)


def _header(n: int, size: int, entry: int, wide: bool) -> Array:
    if wide:
        return np.array([n | (size + 8) << 16, entry], np.int64)
    return np.array([n | (size + 4) << 8 | entry << 16], np.int64)


def constants(site: Site) -> dict[str, int]:
    return {"wide": int(site.optimize == "speed")}


FULLY_CONNECTED: tuple[Kernel, ...] = (
    Kernel(
        "rv32/fully_connected",
        "td_fully_connected_rv32",
        accepts=accepts,
        params=params,
        constants=constants,
    ),
)
