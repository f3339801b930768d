"""RELU_N1_TO_1: clamp each element to [-1, 1]."""

from tinydeploy.ops import _relu

OP = _relu.make("RELU_N1_TO_1", -1, 1)
