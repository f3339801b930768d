"""Offer the kernels written for RV32 with the vector extension, best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._rvv import reduce
from tinydeploy.ops._rvv.conv import CONV
from tinydeploy.ops._rvv.depthwise import DEPTHWISE
from tinydeploy.ops._rvv.planes import PLANES
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = (reduce.ADD,)
AVERAGE_POOL_2D: tuple[Kernel, ...] = (reduce.POOL,)
CONV_2D: tuple[Kernel, ...] = (PLANES, CONV)
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (CONV, DEPTHWISE)
FULLY_CONNECTED: tuple[Kernel, ...] = (CONV,)
MEAN: tuple[Kernel, ...] = (reduce.MEAN,)
