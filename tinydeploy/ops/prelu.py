"""PRELU: multiply negative elements by a constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinydeploy.numerics.fixedpoint import quantize_multiplier, requantize
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops.base import Array, Call


def alpha_is_one_number(call: Call) -> str | None:
    """Alpha is constant and the same for all elements, int8 with one scale."""
    alpha = call.input(1) if call.has_input(1) else None
    if alpha is None or alpha.data is None:
        return "it is computed at run time"
    if alpha.dtype.value != "int8" or alpha.quantization is None or alpha.quantization.per_channel:
        return f"it is {alpha.dtype.value} or has no single scale"
    return None if (alpha.data == alpha.data.flat[0]).all() else "it holds different numbers"


def _slope(call: Call) -> float:
    """Return the scale of a product over the output's, in float32 as LiteRT computes it."""
    inp, alpha, out = (np.float32(t.scale) for t in (call.input(), call.input(1), call.output))
    return float(inp * alpha / out)


def slope_in_range(call: Call) -> str | None:
    """The scales of input and alpha over the output's are below 2^29."""
    return None if _slope(call) < 2**29 else f"it is {_slope(call):.3g}"


def _alpha(call: Call) -> int:
    data = call.input(1).data
    assert data is not None
    return int(data.flat[0])


def table(call: Call, profile: IntegerProfile) -> Array:
    """Requantise with one of two multipliers (TFLite reference_ops::BroadcastPrelu4DSlow)."""
    x = lookup.stored_values() - call.input().zero_point
    alpha = _alpha(call) - call.input(1).zero_point
    kept = requantize(x, *quantize_multiplier(lookup.ratio(call)), single=False)
    scaled = requantize(x * alpha, *quantize_multiplier(_slope(call)), single=False)
    out = np.where(x >= 0, kept, scaled) + call.output.zero_point
    result: Array = np.clip(out, -128, 127).astype(np.int8)
    return result


def _function(call: Call) -> Callable[[Array], Array]:
    alpha = call.input(1).data
    assert alpha is not None
    return lambda x: np.where(x < 0, alpha * x, x)


OP = lookup.make(
    "PRELU",
    "rectifier with one constant slope, through an exact 256-entry table",
    table,
    _function,
    checks=(alpha_is_one_number, lookup.ratio_in_range, slope_in_range),
)
