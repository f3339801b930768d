"""RELU_0_TO_1: clamp each element to [0, 1]."""

from tinydeploy.ops import _relu

OP = _relu.make("RELU_0_TO_1", 0, 1)
