"""Share what element-wise operators of two inputs have in common: broadcasting and rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.ops.base import Call, RowSource, Site
from tinydeploy.ops.checks import shape4


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the fused activation."""

    activation: str


@dataclass(frozen=True, slots=True)
class Params:
    """Begin the parameters of an operator: what `strides` returns."""

    width: int
    channels: int
    a_stride_w: int
    a_stride_c: int
    b_stride_w: int
    b_stride_c: int


def shapes_broadcast(call: Call) -> str | None:
    """The two inputs broadcast to the output, not along the batch."""
    a, b = call.input(0).shape, call.input(1).shape
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return f"{list(a)} and {list(b)}"
    if shape4(a)[0] != shape4(b)[0]:
        return f"{list(a)} and {list(b)} differ in the batch"
    batch = shape4(a)[0]
    if batch > 1 and shape4(a)[1] != shape4(b)[1]:
        return f"{list(a)} and {list(b)} differ in height at batch {batch}"
    if max(len(a), len(b)) > 4 and a != b:
        return f"{list(a)} and {list(b)} have more than 4 axes"
    return None


def shape(call: Call) -> list[tuple[int, ...]]:
    return [tuple(np.broadcast_shapes(call.input(0).shape, call.input(1).shape))]


def region(call: Call) -> tuple[RowSource, ...]:
    """One row of each input; an input of height 1 is read again for every row."""
    rows = call.output.rows
    return tuple(RowSource(k, stride=1 if call.input(k).rows == rows else 0) for k in range(2))


def columns(call: Call) -> tuple[RowSource, ...] | None:
    """One column of each input; None where an input is repeated."""
    shapes = {call.input(k).shape for k in range(2)}
    return (RowSource(0), RowSource(1)) if shapes == {call.output.shape} else None


def in_place(call: Call, position: int) -> bool:
    """The output may overwrite an input of its own shape."""
    return call.input(position).shape == call.output.shape


def is_one_row(site: Site) -> bool:
    """Tell whether all tensors are plain, so that two of one shape are one long row."""
    return site.output_layout.plain and site.input_layout(0).plain and site.input_layout(1).plain


def strides(call: Call) -> tuple[int, int, int, int, int, int]:
    """Return (width, channels, a_w, a_c, b_w, b_c): element strides within a row, 0 = repeat."""
    _, _, width, channels = shape4(call.output.shape)
    inner = [shape4(call.input(k).shape)[2:] for k in range(2)]
    if all(wc in ((width, channels), (1, 1)) for wc in inner):
        # Nothing repeats but whole scalars: the row is one long run.
        size = width * channels
        a_c, b_c = (int(wc == (width, channels)) for wc in inner)
        return 1, size, 0, a_c, 0, b_c
    (a_w, a_c), (b_w, b_c) = ((c if w > 1 else 0, int(c > 1)) for w, c in inner)
    return width, channels, a_w, a_c, b_w, b_c
