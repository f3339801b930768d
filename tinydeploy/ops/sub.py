"""SUB: subtract two tensors element by element."""

from tinydeploy.ops import _addsub

OP = _addsub.make("SUB", "difference of two tensors, broadcasting", "SubOptions", -1)
