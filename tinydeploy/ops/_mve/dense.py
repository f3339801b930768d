"""Turn dense layers into what the kernel for MVE reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ops._mve import common
from tinydeploy.ops._mve.conv import ISA
from tinydeploy.ops.base import Array, Kernel, Site


@dataclass(frozen=True, slots=True)
class DenseParams:
    """Mirror the parameters of templates/ops/mve/fully_connected.c.j2."""

    batches: int
    in_c: int
    out_c: int
    groups: int
    tail: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    stream: Array
    last_stream: Array


def _parts(site: Site) -> tuple[Any, Array, int]:
    """Return (the operator's parameters, bias with the zero point folded in, rounding mode)."""
    from tinydeploy.ops.fully_connected import params

    p = params(site.call, site.profile)
    mode = common.rounding_mode(p.shift, p.out_offset, p.clamp_min, bool(p.single_rounding))
    return p, common.folded_bias(p.weights, p.bias, -p.in_offset), mode


def _accepts(site: Site) -> bool:
    if site.isa != ISA or site.optimize == "size":
        return False
    p, bias, mode = _parts(site)
    if mode != common.ONCE_LEFT:
        return True
    return common.bound(p.weights, bias) << max(0, int(p.shift.max()) + 2) < 2**31


def dense_params(site: Site) -> DenseParams:
    p, bias, mode = _parts(site)
    whole = p.out_c // 8 * 8

    def part(first: int, end: int) -> Array:
        """Return the stream of some rows, padded to groups of eight, even rows' scales first."""
        if end == first:
            return np.zeros(1, np.int32)
        pad = -(end - first) % 8
        weights = np.pad(p.weights[first:end], ((0, pad), (0, 0)))[:, None, :]
        order = np.arange(len(weights)).reshape(-1, 4, 2).transpose(0, 2, 1).reshape(-1)
        scales = [np.pad(a[first:end], (0, pad))[order] for a in (bias, p.multiplier)]
        shift = np.pad(p.shift[first:end], (0, pad), constant_values=-2)[order]
        return common.stream(weights, scales[0], scales[1], shift, mode, width=8)

    return DenseParams(
        p.batches, p.in_c, p.out_c, p.out_c // 8, (p.in_c - 1) % 16 + 1, p.out_offset,
        p.clamp_min, p.clamp_max, part(0, whole), part(whole, p.out_c),
    )  # fmt: skip


def _constants(site: Site) -> dict[str, int]:
    p, _, mode = _parts(site)
    return {
        "blocks": -(-p.in_c // 16),
        "tail": int(p.in_c % 16 != 0),
        "mode": mode,
        "clamp": int((p.clamp_min, p.clamp_max) != common.INT8),
    }


DENSE = Kernel("mve/fully_connected", "td_fully_connected_mve", _accepts, dense_params, _constants)
