"""Make ADD models."""

from functools import partial

from op_models import _elementwise

fixed = partial(_elementwise.fixed, "ADD")
drawn = partial(_elementwise.drawn, "ADD")
