"""Make SUB models."""

from functools import partial

from op_models import _elementwise

fixed = partial(_elementwise.fixed, "SUB")
drawn = partial(_elementwise.drawn, "SUB")
