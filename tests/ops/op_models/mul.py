"""Make MUL models."""

from functools import partial

from op_models import _elementwise

fixed = partial(_elementwise.fixed, "MUL")
drawn = partial(_elementwise.drawn, "MUL")
