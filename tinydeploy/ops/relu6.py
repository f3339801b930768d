"""RELU6: clamp each element to [0, 6]."""

from tinydeploy.ops import _relu

OP = _relu.make("RELU6", 0, 6)
