"""Offer the kernels written for Armv7-M without DSP, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._armv7m.add import SUMS
from tinydeploy.ops._armv7m.conv import CONVOLUTIONS
from tinydeploy.ops._armv7m.dense import DENSE
from tinydeploy.ops._armv7m.depthwise import DEPTHWISE
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = SUMS
AVERAGE_POOL_2D: tuple[Kernel, ...] = ()
CONV_2D: tuple[Kernel, ...] = CONVOLUTIONS
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = DEPTHWISE
FULLY_CONNECTED: tuple[Kernel, ...] = DENSE
MEAN: tuple[Kernel, ...] = ()
