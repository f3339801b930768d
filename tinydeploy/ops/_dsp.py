"""Offer the kernels for Arm cores with the DSP extension, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops import _dsp_add as add
from tinydeploy.ops import _dsp_dense as dense
from tinydeploy.ops import _dsp_depthwise as depthwise
from tinydeploy.ops import _dsp_gemm as gemm
from tinydeploy.ops import _dsp_pool as pool
from tinydeploy.ops import _dsp_taps as taps
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = add.ADD
AVERAGE_POOL_2D: tuple[Kernel, ...] = pool.AVERAGE_POOL_2D
CONV_2D: tuple[Kernel, ...] = gemm.CONV_2D
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (
    *gemm.DEPTHWISE_CONV_2D,
    *depthwise.DEPTHWISE_CONV_2D,
    *taps.DEPTHWISE_CONV_2D,
)
FULLY_CONNECTED: tuple[Kernel, ...] = dense.FULLY_CONNECTED
MEAN: tuple[Kernel, ...] = pool.MEAN
