"""AVERAGE_POOL_2D: average each window of an image, padding not counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _pool as pool
from tinydeploy.ops import _window as window
from tinydeploy.ops._families import kernels
from tinydeploy.ops.base import Array, Call, Kernel, Op, Site, element_bits, portable
from tinydeploy.ops.checks import batch_is_one, int8_or_int16, same_quantization


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Sum, divide with halves away from zero, clamp (TFLite reference_integer_ops::AveragePool)."""
    p, g = pool.params(call, profile), pool.geometry(call)
    total = window.patches(values[0].astype(np.int64), g, 0).sum(axis=(2, 3))
    ones = np.ones((1, g.in_h, g.in_w, 1), np.int64)
    count = np.maximum(window.patches(ones, g, 0).sum(axis=(2, 3)), 1)
    out = np.sign(total) * ((np.abs(total) + count // 2) // count)
    return [np.clip(out, p.clamp_min, p.clamp_max).astype(call.output.dtype.numpy)[None]]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    g = pool.geometry(call)
    total = window.patches(values[0], g, 0).sum(axis=(2, 3))
    count = window.patches(np.ones((1, g.in_h, g.in_w, 1), np.float32), g, 0).sum(axis=(2, 3))
    return [window.activate(total / np.maximum(count, 1), call.attributes.window.activation)[None]]


def sum_fits(call: Call) -> str | None:
    """A window of int16 has at most 2^15 elements, so that their sum fits 32 bits."""
    g = pool.geometry(call)
    count = min(g.kernel_h, g.in_h) * min(g.kernel_w, g.in_w)
    if call.output.dtype is DType.INT16 and count > 1 << 15:
        return f"{count:,} elements"
    return None


@dataclass(frozen=True, slots=True)
class RowsParams:
    """Mirror td_average_pool_2d_rows_params."""

    width: int
    channels: int
    rows: int
    count: int
    clamp_min: int
    clamp_max: int


def _covers_all(site: Site) -> bool:
    """Accept one window that holds the whole image."""
    g = pool.geometry(site.call)
    last_row, last_column = g.kernel_h - g.pad_top, g.kernel_w - g.pad_left
    return g.out_h == g.out_w == 1 and last_row >= g.in_h and last_column >= g.in_w


def _rows_params(site: Site) -> RowsParams:
    p, g = pool.params(site.call, site.profile), pool.geometry(site.call)
    return RowsParams(g.in_w, p.channels, g.in_h, g.in_h * g.in_w, p.clamp_min, p.clamp_max)


GLOBAL = Kernel(
    "average_pool_2d_rows",
    "td_average_pool_2d_rows",
    accepts=_covers_all,
    params=_rows_params,
    constants=element_bits,
    by_rows=True,
    accumulators=lambda site: 4 * site.call.input().shape[3],
)

OP = Op(
    name="AVERAGE_POOL_2D",
    summary="average over windows",
    parse=pool.parse,
    checks=(int8_or_int16, batch_is_one, same_quantization, sum_fits),
    shape=pool.shape,
    reference=reference,
    stored=pool.stored,
    float_reference=float_reference,
    params=pool.params,
    region=lambda call: window.rows_of(pool.geometry(call)),
    columns=lambda call: window.columns_of(pool.geometry(call)),
    narrow=pool.narrow,
    kernels=kernels("AVERAGE_POOL_2D", portable("average_pool_2d")),
    reductions=(GLOBAL,),
)
