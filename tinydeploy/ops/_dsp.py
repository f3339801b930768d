"""Offer the kernels for Arm cores with the DSP extension, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._dsp_depthwise import DEPTHWISE_CONV_2D as DEPTHWISE_CONV_2D
from tinydeploy.ops._dsp_gemm import CONV_2D as CONV_2D
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = ()
AVERAGE_POOL_2D: tuple[Kernel, ...] = ()
FULLY_CONNECTED: tuple[Kernel, ...] = ()
MEAN: tuple[Kernel, ...] = ()
