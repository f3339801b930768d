"""ADD: add two tensors element by element."""

from tinydeploy.ops import _addsub

OP = _addsub.make("ADD", "sum of two tensors, broadcasting", "AddOptions", 1)
