"""RESIZE_NEAREST_NEIGHBOR: enlarge or shrink an image by repeating or skipping pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Array, Call, Op, RowSource, Stored, alike_on_floats, portable_bytes
from tinydeploy.ops.checks import batch_is_one, int8_or_int16, same_quantization


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the output size and the two sampling conventions of TensorFlow."""

    height: int
    width: int
    align_corners: bool
    half_pixel_centers: bool


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_resize_nearest_neighbor_params."""

    out_w: int
    pixel: int  # bytes
    columns: Array  # uint16 [out_w]: the input column of each output column


def parse(reader: Any) -> Attributes:
    from tflite import ResizeNearestNeighborOptions

    size = [int(v) for v in np.atleast_1d(reader.constant(1, "size"))]
    if len(size) != 2 or not all(1 <= s <= 65535 for s in size):
        reader.refuse(f"size {size}")
    options = reader.options(ResizeNearestNeighborOptions)
    return Attributes(
        size[0], size[1], bool(options.AlignCorners()), bool(options.HalfPixelCenters())
    )


def _sources(call: Call, axis: int, wanted: int) -> tuple[int, ...]:
    """Return the input index of each output index (TFLite GetNearestNeighbor, in float32)."""
    size = call.input().shape[axis]
    a = call.attributes
    align = a.align_corners and wanted > 1
    if align:
        scale = np.float32(size - 1) / np.float32(wanted - 1)
    else:
        scale = np.float32(size) / np.float32(wanted)
    offset = np.float32(0.5 if a.half_pixel_centers else 0.0)
    position = (np.arange(wanted).astype(np.float32) + offset) * scale
    nearest = np.trunc(position + np.float32(0.5)) if a.align_corners else np.floor(position)
    return tuple(int(v) for v in np.clip(nearest, 0, size - 1))


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    a = call.attributes
    rows, columns = _sources(call, 1, a.height), _sources(call, 2, a.width)
    return [np.ascontiguousarray(values[0][:, list(rows)][:, :, list(columns)])]


def params(call: Call, profile: IntegerProfile) -> Params:
    columns = np.array(_sources(call, 2, call.attributes.width), np.uint16)
    pixel = call.input().shape[3] * call.input().dtype.size
    return Params(call.attributes.width, pixel, columns)


def stored(call: Call) -> Stored:
    a = call.attributes
    options = {"AlignCorners": a.align_corners, "HalfPixelCenters": a.half_pixel_centers}
    return options, [np.array([a.height, a.width], np.int32)]


OP = Op(
    name="RESIZE_NEAREST_NEIGHBOR",
    summary="nearest neighbour, all three sampling conventions",
    parse=parse,
    checks=(int8_or_int16, batch_is_one, same_quantization),
    shape=lambda call: [(1, call.attributes.height, call.attributes.width, call.input().shape[3])],
    reference=reference,
    stored=stored,
    float_reference=alike_on_floats(reference),
    params=params,
    region=lambda call: (RowSource(0, table=_sources(call, 1, call.attributes.height)),),
    kernels=portable_bytes("resize_nearest_neighbor"),
)
