"""Layouts of rows: where padding is stored, and the way back to arrays."""

from __future__ import annotations

import numpy as np
import pytest

from tinydeploy.ir import DType, Quantization, Tensor
from tinydeploy.ops import Layout

IMAGE = Tensor("t", (1, 3, 4, 2), DType.INT8, Quantization((1.0,), (0,)))


@pytest.mark.parametrize(
    ("layout", "row_bytes"),
    [
        (Layout(planar=True), 8),
        (Layout(planar=True, left=1, right=1), 12),
        (Layout(planar=True, left=1, tail=1), 11),
        (Layout(planar=True, right=1, tail=2), 12),
        (Layout(left=1, right=2), 14),
    ],
)
def test_unpack_finds_every_element(layout: Layout, row_bytes: int) -> None:
    image = np.arange(24, dtype=np.int8).reshape(IMAGE.shape)
    assert layout.row_bytes(IMAGE) == row_bytes
    data = np.full((3, row_bytes), -1, np.int8)
    for y, x, c in np.ndindex(3, 4, 2):
        pitch = layout.plane_bytes(IMAGE)
        at = c * pitch + x if layout.planar else 2 * x + c
        data[y, layout.first(IMAGE) + at] = image[0, y, x, c]
    assert layout.bytes(IMAGE) == data.size
    np.testing.assert_array_equal(layout.unpack(data.tobytes(), IMAGE), image)
