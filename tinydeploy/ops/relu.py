"""RELU: set negative elements to 0."""

from tinydeploy.ops import _relu

OP = _relu.make("RELU", 0, float("inf"))
