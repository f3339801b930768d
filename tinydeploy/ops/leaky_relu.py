"""LEAKY_RELU: multiply negative elements by alpha."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


@dataclass(frozen=True, slots=True)
class Attributes:
    """Hold the factor of negative elements."""

    alpha: float


def parse(reader: Any) -> Attributes:
    from tflite import LeakyReluOptions

    alpha = float(reader.options(LeakyReluOptions).Alpha())
    if not 0.0 <= alpha <= 1024.0:
        reader.refuse(f"alpha {alpha}")
    return Attributes(alpha)


def _slope(call: Call) -> float:
    """Return alpha times the input's scale over the output's, in float32 as LiteRT does."""
    inp, out = np.float32(call.input().scale), np.float32(call.output.scale)
    return float(inp * np.float32(call.attributes.alpha) / out)


def slope_in_range(call: Call) -> str | None:
    """Alpha times the input's scale over the output's is below 2^29."""
    return None if _slope(call) < 2**29 else f"it is {_slope(call):.3g}"


def table(call: Call, profile: IntegerProfile) -> Array:
    """Requantise with one of two multipliers (TFLite reference_ops::QuantizeLeakyRelu)."""
    x = lookup.stored_values() - call.input().zero_point
    kept = requantize(x, *quantize_multiplier(lookup.ratio(call)), single=False)
    leaked = requantize(x, *quantize_multiplier(_slope(call)), single=False)
    out = np.where(x >= 0, kept, leaked) + call.output.zero_point
    result: Array = np.clip(out, -128, 127).astype(np.int8)
    return result


def _function(call: Call) -> Callable[[Array], Array]:
    alpha = np.float32(call.attributes.alpha)
    return lambda x: np.where(x < 0, alpha * x, x)


OP = lookup.make(
    "LEAKY_RELU",
    "leaky rectifier through an exact 256-entry table",
    table,
    _function,
    parse=parse,
    checks=(lookup.ratio_in_range, slope_in_range),
    stored=lambda call: ({"Alpha": call.attributes.alpha}, []),
)
