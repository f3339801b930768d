"""MEAN: average a tensor over some of its axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize, wrap32
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops._families import kernels
from tinydeploy.ops.base import Array, Call, Kernel, Op, Site, Stored, element_bits, portable
from tinydeploy.ops.checks import int8_or_int16


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the axes to average over, ascending and non-negative."""

    axes: tuple[int, ...]
    keep_dims: bool


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_mean_params: up to 5 axes, alternately kept and averaged over.

    The input is seen as [outer, reduce_0, middle, reduce_1, inner], strides in elements.
    """

    outer: int
    reduce_0: int
    middle: int
    reduce_1: int
    inner: int
    sum_offset: int
    multiplier: int
    shift: int
    out_offset: int


def parse(reader: Any) -> Attributes:
    from tflite import ReducerOptions

    rank = len(reader.shape(0))
    axes = {int(a) for a in np.atleast_1d(reader.constant(1, "axes"))}
    if any(not -rank <= a < rank for a in axes):
        reader.refuse(f"axes {sorted(axes)} of a tensor of rank {rank}")
    return Attributes(
        tuple(sorted({a % rank for a in axes})), bool(reader.options(ReducerOptions).KeepDims())
    )


def _runs(call: Call) -> list[tuple[bool, int]]:
    """Merge neighbouring axes: (averaged over?, size), axes of size 1 left out."""
    runs: list[tuple[bool, int]] = []
    for axis, size in enumerate(call.input().shape):
        if size == 1:
            continue
        reduced = axis in call.attributes.axes
        if runs and runs[-1][0] == reduced:
            size *= runs.pop()[1]
        runs.append((reduced, size))
    return runs


def axes_exist(call: Call) -> str | None:
    """The axes are the input's, each named once, in order."""
    axes, rank = call.attributes.axes, len(call.input().shape)
    fits = list(axes) == sorted({a for a in axes if 0 <= a < rank})
    return None if fits else f"axes {list(axes)} of rank {rank}"


def two_runs(call: Call) -> str | None:
    """The axes averaged over form at most two runs of neighbours."""
    if sum(reduced for reduced, _ in _runs(call)) > 2:
        return f"axes {list(call.attributes.axes)} of {list(call.input().shape)}"
    return None


def multiplier_in_range(call: Call) -> str | None:
    """The input's scale over the output's is below 2^30."""
    real = float(call.input().scale) / float(call.output.scale)
    return None if real < 2**30 else f"it is {real:.3g}"


def sum_fits(call: Call) -> str | None:
    """At most 2^22 elements are averaged, 2^15 of int16, so that their sum fits 32 bits."""
    count = int(np.prod([size for reduced, size in _runs(call) if reduced], dtype=np.int64))
    return (
        None
        if count <= 1 << (15 if call.input().dtype is DType.INT16 else 22)
        else f"{count:,} elements"
    )


def shape(call: Call) -> list[tuple[int, ...]]:
    axes, keep = call.attributes.axes, call.attributes.keep_dims
    sizes = enumerate(call.input().shape)
    if keep:
        return [tuple(1 if a in axes else s for a, s in sizes)]
    return [tuple(s for a, s in sizes if a not in axes)]


def params(call: Call, profile: IntegerProfile) -> Params:
    """Fold 1 / count into the multiplier as TFLite reference_ops::QuantizedMeanOrSum does."""
    sizes = [1, 1, 1, 1, 1]
    position = 0
    for reduced, size in _runs(call):
        position += (position % 2 == 1) != reduced
        sizes[position] = size
        position += 1
    count = sizes[1] * sizes[3]
    multiplier, shift = quantize_multiplier(float(call.input().scale) / float(call.output.scale))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    outer, reduce_0, middle, reduce_1, inner = sizes
    sum_offset = -call.input().zero_point * count
    folded = (multiplier << extra) // count
    return Params(
        outer, reduce_0, middle, reduce_1, inner, sum_offset, folded, shift - extra,
        call.output.zero_point,
    )  # fmt: skip


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Sum, requantise with the count folded in, clamp."""
    p = params(call, profile)
    view = values[0].astype(np.int64).reshape(p.outer, p.reduce_0, p.middle, p.reduce_1, p.inner)
    low, high = call.output.dtype.bounds
    total = wrap32(view.sum(axis=(1, 3)) + p.sum_offset)
    out = requantize(total, p.multiplier, p.shift, single=profile.rounds_once("MEAN"))
    return [
        np.clip(out + p.out_offset, low, high)
        .astype(call.output.dtype.numpy)
        .reshape(call.output.shape)
    ]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    mean = values[0].mean(axis=call.attributes.axes, dtype=np.float32)
    return [mean.reshape(call.output.shape)]


@dataclass(frozen=True, slots=True)
class RowsParams:
    """Mirror td_mean_rows_params."""

    width: int
    channels: int
    rows: int
    sum_offset: int
    multiplier: int
    shift: int
    out_offset: int


def _averages_an_image(site: Site) -> bool:
    """Accept the mean over all rows and columns of one image."""
    shape = site.call.input().shape
    reduced = {a for a in site.call.attributes.axes if shape[a] > 1}
    return len(shape) == 4 and shape[0] == 1 and reduced == {a for a in (1, 2) if shape[a] > 1}


def _rows_params(site: Site) -> RowsParams:
    p, (_, rows, width, channels) = params(site.call, site.profile), site.call.input().shape
    return RowsParams(width, channels, rows, p.sum_offset, p.multiplier, p.shift, p.out_offset)


GLOBAL = Kernel(
    "mean_rows",
    "td_mean_rows",
    accepts=_averages_an_image,
    params=_rows_params,
    constants=element_bits,
    by_rows=True,
    accumulators=lambda site: 4 * site.call.input().shape[3],
)


def stored(call: Call) -> Stored:
    axes = np.array(call.attributes.axes, np.int32)
    return {"KeepDims": call.attributes.keep_dims}, [axes]


OP = Op(
    name="MEAN",
    summary="average over any axes that form at most two runs",
    parse=parse,
    checks=(int8_or_int16, axes_exist, two_runs, sum_fits, multiplier_in_range),
    shape=shape,
    reference=reference,
    stored=stored,
    float_reference=float_reference,
    params=params,
    kernels=kernels("MEAN", portable("mean")),
    reductions=(GLOBAL,),
)
