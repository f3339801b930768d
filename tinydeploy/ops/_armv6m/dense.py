"""Turn a dense layer into the stream that the Armv6-M kernel reads."""

from __future__ import annotations

import numpy as np

from tinydeploy.ops._armv6m.conv import pieces_of
from tinydeploy.ops._armv7m.conv import Sums
from tinydeploy.ops._armv7m.dense import Params, dense_sums
from tinydeploy.ops.base import Array, Kernel, Site

_GROUP = 4  # channels at a time


def accepts(site: Site) -> bool:
    """Accept aligned vectors whose sums can be scaled in pieces."""
    if site.isa != "armv6-m":
        return False
    sums, depth = dense_sums(site), site.call.input(1).shape[1]
    return (
        (site.call.input().elements == depth or depth % 4 == 0)
        and bool((sums.shift >= 1).all())
        and bool((sums.shift < 20).all())
        and bool((np.abs(sums.bias) < 1 << 26).all())
        and pieces_of(sums) is not None
    )


def _single(site: Site) -> bool:
    return site.profile.rounds_once("FULLY_CONNECTED")


def stream_of(sums: Sums, wide: bool) -> Array:
    """Return the stream: per four channels biases and shifts, weights, multipliers."""
    units = -len(sums.bias) % _GROUP
    head = np.pad(sums.bias << 5 | sums.shift, (0, units), constant_values=1).astype("<i4")
    multiplier = np.pad(sums.multiplier, (0, units)).astype("<i4")
    weights = np.pad(sums.weights, [(0, units), (0, -sums.weights.shape[1] % 4)])
    parts = []
    for first in range(0, len(head), _GROUP):
        group = slice(first, first + _GROUP)
        parts.append(head[group].tobytes())
        parts.append(weights[group].T.astype("<i4" if wide else "i1").tobytes())
        parts.append(multiplier[group].tobytes())
    return np.frombuffer(b"".join(parts), "<i4").astype(np.int32)


def params(site: Site) -> Params:
    call, sums = site.call, dense_sums(site)
    units, depth = call.input(1).shape
    return Params(
        call.input().elements // depth, depth, units, 2 * sums.out_zero + 1,
        sums.clamp_min, sums.clamp_max, stream_of(sums, site.optimize == "speed"),
    )  # fmt: skip


def constants(site: Site) -> dict[str, int]:
    sums = dense_sums(site)
    return {
        "sign": int(sums.signed and not _single(site)),
        "clamp": int(sums.clamped),
        "wide": int(site.optimize == "speed"),
        "single": int(_single(site)),
        "pieces": pieces_of(sums) or 0,
    }


DENSE = (
    Kernel(
        "armv6m/fully_connected",
        "td_fully_connected_armv6m",
        accepts=accepts,
        params=params,
        constants=constants,
    ),
)
