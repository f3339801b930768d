"""Offer the kernels written for Armv6-M, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._armv6m.conv import CONVOLUTIONS
from tinydeploy.ops._armv6m.dense import DENSE
from tinydeploy.ops._armv6m.depthwise import DEPTHWISE
from tinydeploy.ops._armv7m.add import SUMS_ARMV6M
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = SUMS_ARMV6M
AVERAGE_POOL_2D: tuple[Kernel, ...] = ()
CONV_2D: tuple[Kernel, ...] = CONVOLUTIONS
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = DEPTHWISE
FULLY_CONNECTED: tuple[Kernel, ...] = DENSE
MEAN: tuple[Kernel, ...] = ()
