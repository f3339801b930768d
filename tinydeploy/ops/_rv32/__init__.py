"""Offer the kernels written for RV32IM with compressed instructions, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._rv32 import conv, conv_rows
from tinydeploy.ops._rv32.add import ADD
from tinydeploy.ops._rv32.dense import FULLY_CONNECTED
from tinydeploy.ops._rv32.depthwise import PLANES, PLANES_3X3
from tinydeploy.ops._rv32.depthwise_rows import COLUMNS, ROWS, ROWS_3X3
from tinydeploy.ops.base import Kernel

AVERAGE_POOL_2D: tuple[Kernel, ...] = ()
CONV_2D: tuple[Kernel, ...] = (*conv.PLANES, *conv_rows.ROWS)
CONV_2D_PACKED: tuple[Kernel, ...] = tuple(conv.packs(kernel) for kernel in CONV_2D)
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (
    PLANES_3X3,
    ROWS_3X3,
    PLANES,
    *COLUMNS,
    *ROWS,
)
MEAN: tuple[Kernel, ...] = ()

__all__ = [
    "ADD",
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "CONV_2D_PACKED",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "MEAN",
]
