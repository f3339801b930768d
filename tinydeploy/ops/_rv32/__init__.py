"""Offer the kernels written for RV32IM with compressed instructions, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._rv32.add import ADD
from tinydeploy.ops._rv32.conv import CONV_2D, CONV_2D_PACKED
from tinydeploy.ops._rv32.dense import FULLY_CONNECTED
from tinydeploy.ops._rv32.depthwise import PLANES, PLANES_3X3
from tinydeploy.ops._rv32.depthwise_rows import COLUMN, ROWS, ROWS_3X3
from tinydeploy.ops.base import Kernel

AVERAGE_POOL_2D: tuple[Kernel, ...] = ()
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (PLANES_3X3, ROWS_3X3, PLANES, COLUMN, ROWS)
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
