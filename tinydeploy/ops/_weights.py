"""Turn known weights into the fewest bits that hold them all: 2, 4, 8, or indices of 4."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAST_CODED = 256  # weights for which a codebook is looked for


def weight_bits(values: Array) -> int:
    """Return the width of the narrowest field that holds every weight: 2, 4 or 8 bits.

    A field of n bits is two's complement: 2 bits hold -2..1 (ternary weights are among them),
    4 bits hold -8..7. A constant with no elements takes fields of 2 bits.
    """
    if not values.size:
        return 2
    low, high = int(values.min()), int(values.max())
    return next((b for b in (2, 4) if -(1 << b - 1) <= low and high < 1 << b - 1), 8)


def codebook(values: Array) -> NDArray[np.int8] | None:
    """Return the 16 values that all weights are among, ascending, the last repeated; else None.

    None, too, where fields of fewer than 8 bits hold the weights themselves, and for few weights,
    which have few values by chance.
    """
    if values.size < LEAST_CODED or weight_bits(values) < 8:
        return None
    found = np.flatnonzero(np.bincount(values.reshape(-1).astype(np.int64) + 128, minlength=256))
    if len(found) > 16:
        return None
    return np.pad(found - 128, (0, 16 - len(found)), "edge").astype(np.int8)


def storage_bytes(count: int, bits: int) -> int:
    """Return the bytes that `count` fields of `bits` bits take; the last byte may be part full."""
    return -(-count * bits // 8)


def pack(values: Array, bits: int) -> NDArray[np.uint8]:
    """Return integers as fields of 2, 4 or 8 bits, C order, the first in a byte's lowest bits.

    Fields are two's complement; the unused fields of the last byte are 0. Raises ValueError
    when a value does not fit, which is a fault of the caller.
    """
    flat = np.asarray(values).reshape(-1).astype(np.int64)
    half = 1 << bits - 1
    if flat.size and not (-half <= flat.min() and flat.max() < half):
        raise ValueError(f"{flat.min()}..{flat.max()} does not fit fields of {bits} bits")
    per_byte = 8 // bits
    fields = np.zeros(storage_bytes(flat.size, bits) * per_byte, np.int64)
    fields[: flat.size] = flat & (2 * half - 1)
    shifts = np.arange(per_byte, dtype=np.int64) * bits
    return np.asarray((fields.reshape(-1, per_byte) << shifts).sum(axis=1), np.uint8)


def unpack(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.int8]:
    """Return the first `count` fields of `pack`'s bytes as int8."""
    shifts = np.arange(8 // bits, dtype=np.int64) * bits
    fields = (packed.astype(np.int64)[:, None] >> shifts) & ((1 << bits) - 1)
    half = 1 << bits - 1
    return np.asarray((fields.reshape(-1)[:count] ^ half) - half, np.int8)
