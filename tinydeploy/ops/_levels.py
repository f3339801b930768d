"""Share what NARROW and WIDEN have in common: int8 values held as indices of 4 or 2 bits.

A packed tensor holds bytes, row by row as the values it stands for: the first value of a row is
in the lowest bits of its first byte, and each row begins with a byte of its own.
"""

from __future__ import annotations

import math

import numpy as np

from tinydeploy.ir import DType
from tinydeploy.ops.base import Array, Call, RowSource

BITS = {16: 4, 4: 2}  # by the number of levels


def bits_of(call: Call) -> int:
    """Return the bits of each index."""
    return BITS[len(call.attributes.levels)]


def levels_of(call: Call) -> Array:
    """Return the values that indices stand for, int8 ascending."""
    return np.frombuffer(call.attributes.levels, np.int8)


def bytes_in_out(call: Call) -> str | None:
    """Input and output are int8, computed at run time."""
    for tensor in (*call.inputs, *call.outputs):
        if tensor is None or tensor.constant or tensor.dtype is not DType.INT8:
            return f"tensor '{tensor.name if tensor else 'none'}'"
    return None


def levels_ascend(call: Call) -> str | None:
    """There are 16 or 4 levels, each larger than the one before."""
    levels = call.attributes.levels
    if len(levels) not in BITS:
        return f"there are {len(levels)}"
    values = np.frombuffer(levels, np.int8).astype(np.int64)
    return None if (np.diff(values) > 0).all() else f"{values.tolist()}"


def row_elements(shape: tuple[int, ...]) -> int:
    """Return how many values a row of an unpacked tensor has."""
    return math.prod(shape[-2:])


def packed_shape(shape: tuple[int, ...], bits: int) -> tuple[int, ...]:
    """Return the shape of a packed tensor, which has as many rows and axes (two, if it had one)."""
    return (*shape[:-2], 1, -(-row_elements(shape) * bits // 8))


def pack_rows(indices: Array, bits: int) -> Array:
    """Return the bytes of indices: uint8 [rows, elements] to int8 [rows, bytes]."""
    each = 8 // bits
    padded = np.pad(indices, ((0, 0), (0, -indices.shape[1] % each)))
    fields = padded.reshape(len(padded), -1, each).astype(np.uint8) << (bits * np.arange(each))
    joined: Array = np.bitwise_or.reduce(fields.astype(np.uint8), axis=2)
    return joined.view(np.int8)


def unpack_rows(packed: Array, bits: int, elements: int) -> Array:
    """Return the indices in bytes: int8 [rows, bytes] to uint8 [rows, elements]."""
    places = bits * np.arange(8 // bits)
    fields = packed.view(np.uint8)[:, :, None] >> places & (1 << bits) - 1
    return fields.reshape(len(packed), -1)[:, :elements]


def region(call: Call) -> tuple[RowSource, ...]:
    return (RowSource(),)
