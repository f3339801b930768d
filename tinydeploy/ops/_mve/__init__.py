"""Offer the kernels written for Armv8.1-M with MVE (Helium), best first, per operator."""

from __future__ import annotations

from tinydeploy.ops._mve.conv import POINTWISE, WINDOW
from tinydeploy.ops._mve.dense import DENSE
from tinydeploy.ops._mve.depthwise import LANES, SQUARE, STACK
from tinydeploy.ops._mve.small import ADDITION, AVERAGE, MEAN_PIXELS
from tinydeploy.ops.base import Kernel

ADD: tuple[Kernel, ...] = (ADDITION,)
AVERAGE_POOL_2D: tuple[Kernel, ...] = (AVERAGE,)
CONV_2D: tuple[Kernel, ...] = (*POINTWISE, *WINDOW)
DEPTHWISE_CONV_2D: tuple[Kernel, ...] = (*WINDOW, *SQUARE, *STACK, LANES)
FULLY_CONNECTED: tuple[Kernel, ...] = (DENSE,)
MEAN: tuple[Kernel, ...] = (MEAN_PIXELS,)
