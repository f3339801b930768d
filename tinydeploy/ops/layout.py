"""Describe how the rows of an image lie in the arena, and turn arrays into such bytes and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Tensor

Array = NDArray[Any]
Buffer: TypeAlias = bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Say where the elements of a row are; `left` and `right` count stored padding columns.

    Interleaved rows hold pixel after pixel, each with all channels (HWC). Planar rows hold one
    plane of columns after the other, one per channel (HCW): what depthwise kernels want. Padding
    columns hold the zero point; a plane, or an interleaved row, is left + width + right columns.
    The columns between two planes pad both of them; where the last plane needs more after it, a
    planar row ends with `tail` more bytes of padding.
    A tensor that is streamed is worked on row by row, and only those rows are held that are still
    needed, each anywhere: `ring` is 1, or more where a row and its neighbour lie that many rows'
    bytes apart and no 16 bits hold the distance. A tensor that is some columns of a larger one has
    its rows `pitch` bytes apart.
    """

    planar: bool = False
    left: int = 0
    right: int = 0
    tail: int = 0
    ring: int = 0
    pitch: int = 0

    @property
    def plain(self) -> bool:
        """Tell whether the bytes are those of a contiguous NHWC array."""
        return self == PLAIN

    def plane_bytes(self, tensor: Tensor) -> int:
        """Bytes of one channel's columns in a planar row."""
        return (self.left + tensor.shape[-2] + self.right) * tensor.dtype.size

    def row_bytes(self, tensor: Tensor) -> int:
        """Bytes from one row to the next."""
        if self.plain:
            return tensor.row_bytes
        if self.pitch:
            return self.pitch
        return self.plane_bytes(tensor) * tensor.shape[-1] + self.tail

    def first(self, tensor: Tensor) -> int:
        """Bytes from the start of a row to its first element that is not padding."""
        columns = self.left * tensor.dtype.size
        return columns * (1 if self.planar else tensor.shape[-1]) if columns else 0

    def bytes(self, tensor: Tensor) -> int:
        """Bytes of the whole tensor."""
        if self.pitch:
            return self.pitch * (tensor.rows - 1) + tensor.row_bytes
        return tensor.bytes if self.plain else self.row_bytes(tensor) * tensor.rows

    def unpack(self, data: Buffer, tensor: Tensor) -> Array:
        """Return the array whose bytes lie in this layout."""
        flat = np.frombuffer(data, tensor.dtype.numpy)
        if self.plain:
            return flat.reshape(tensor.shape)
        if self.pitch:
            pitch, row = self.pitch // tensor.dtype.size, tensor.elements // tensor.rows
            padded = np.pad(flat, (0, pitch - row)).reshape(-1, pitch)
            return np.ascontiguousarray(padded[:, :row]).reshape(tensor.shape)
        rows, channels = tensor.rows, tensor.shape[-1]
        columns = self.plane_bytes(tensor) // tensor.dtype.size
        if self.planar:
            planes = flat.reshape(rows, -1)[:, : channels * columns]
            image = planes.reshape(rows, channels, columns).transpose(0, 2, 1)
        else:
            image = flat.reshape(rows, columns, channels)
        width = tensor.shape[-2]
        return np.ascontiguousarray(image[:, self.left : self.left + width]).reshape(tensor.shape)

    def __str__(self) -> str:
        if self.plain:
            return ""
        words = []
        if self.ring:
            words.append("row by row")
        if self.pitch:
            words.append(f"rows {self.pitch} bytes apart")
        if self.planar or self.left or self.right:
            order = "planar" if self.planar else "padded"
            tail = f", {self.tail} more at the end" if self.tail else ""
            words.append(f"{order} rows, {self.left}+{self.right} padding columns{tail}")
        return ", ".join(words)


PLAIN = Layout()
