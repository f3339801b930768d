"""Name the real functions that tables are made of, and the ranges they are tabulated over."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Function:
    """Hold a function and its range; those of DIV and RSQRT are reached by powers of two.

    `exponent` is e with f(2^k x) = 2^(e k) f(x), None where there is no such law.
    """

    name: str
    of: Callable[[Floats], Floats]
    low: float
    high: float
    exponent: float | None = None


def _erf(x: Floats) -> Floats:
    return np.array([math.erf(v) for v in np.asarray(x).flat]).reshape(np.shape(x))


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-x))
    return result


# The ranges of the first five are those of GQA-LUT (2024).
FUNCTIONS = {
    f.name: f
    for f in (
        Function("gelu", lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))), -4, 4),
        Function("hswish", lambda x: x * np.clip(x + 3, 0, 6) / 6, -4, 4),
        Function("exp", np.exp, -8, 0),
        Function("div", lambda x: 1 / x, 0.5, 4, -1.0),
        Function("rsqrt", lambda x: 1 / np.sqrt(x), 0.25, 4, -0.5),
        Function("tanh", np.tanh, -4, 4),
        Function("sigmoid", _sigmoid, -8, 8),
        Function("silu", lambda x: x * _sigmoid(x), -8, 8),
        Function("elu", lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), -4, 4),
        Function("sin", np.sin, -math.pi, math.pi),
        Function("cos", np.cos, -math.pi, math.pi),
    )
}
