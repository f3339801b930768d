"""GELU: apply x times the normal distribution function to each element, or its tanh form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


@dataclass(frozen=True, slots=True)
class Attributes:
    """Say whether the tanh form is meant."""

    approximate: bool


def parse(reader: Any) -> Attributes:
    from tflite import GeluOptions

    return Attributes(bool(reader.options(GeluOptions).Approximate()))


def _erfc(x: Array) -> Array:
    found: Array = np.array([math.erfc(v) for v in x.flat]).reshape(x.shape)
    return found


_complement, _tanh = lookup.rounded_once(_erfc), lookup.rounded_once(np.tanh)


def _gelu(x: Array) -> Array:
    kind = x.dtype.type
    result: Array = kind(0.5) * x * _complement(x * kind(-math.sqrt(0.5)))
    return result


def _gelu_tanh(x: Array) -> Array:
    kind = x.dtype.type
    inner = kind(math.sqrt(2 / math.pi)) * (x + kind(0.044715) * x * x * x)
    result: Array = kind(0.5) * x * (kind(1) + _tanh(inner))
    return result


def _function(call: Call) -> Callable[[Array], Array]:
    """Return the form that the node asks for (TensorFlow Lite, reference/gelu.h)."""
    return _gelu_tanh if call.attributes.approximate else _gelu


OP = lookup.make(
    "GELU",
    "Gaussian error linear unit, both forms, through an exact 256-entry table",
    lambda call, profile: lookup.float_table(call, _function(call)),
    _function,
    parse=parse,
    stored=lambda call: ({"Approximate": call.attributes.approximate}, []),
)
