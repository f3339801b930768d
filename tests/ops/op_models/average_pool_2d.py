"""Make AVERAGE_POOL_2D models."""

from functools import partial

from op_models import _pool

fixed = partial(_pool.fixed, "AVERAGE_POOL_2D")
drawn = partial(_pool.drawn, "AVERAGE_POOL_2D")
