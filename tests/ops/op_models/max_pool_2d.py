"""Make MAX_POOL_2D models."""

from functools import partial

from op_models import _pool

fixed = partial(_pool.fixed, "MAX_POOL_2D")
drawn = partial(_pool.drawn, "MAX_POOL_2D")
