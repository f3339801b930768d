"""Offer the kernels for Arm cores with the DSP extension, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._dsp import add, dense, depthwise, gemm, int4, pool, taps
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = add.ADD
AVERAGE_POOL_2D: tuple[Kernel, ...] = pool.AVERAGE_POOL_2D
CONV_2D: tuple[Kernel, ...] = gemm.CONV_2D
CONV_2D_PACKED: tuple[Kernel, ...] = int4.CONV_2D
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (
    *gemm.DEPTHWISE_CONV_2D,
    *depthwise.DEPTHWISE_CONV_2D,
    *taps.DEPTHWISE_CONV_2D,
)
FULLY_CONNECTED: tuple[Kernel, ...] = dense.FULLY_CONNECTED
FULLY_CONNECTED_PACKED: tuple[Kernel, ...] = int4.FULLY_CONNECTED
MEAN: tuple[Kernel, ...] = pool.MEAN
