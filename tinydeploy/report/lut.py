"""Turn tables of one function into a picture: the function above, the error of each below."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinydeploy.numerics.lut.functions import Floats, Function
from tinydeploy.report.svg import line, opening, text, ticks

_WIDTH, _LEFT, _RIGHT = 960, 70, 20
_PANELS = ((30, 190), (260, 200))  # top and height of the function's and the errors' panel
_COLOURS = ("#0969da", "#d1242f", "#1a7f37", "#9a6700")


def lut_svg(function: Function, x: Floats, outputs: Mapping[str, Floats]) -> str:
    """Return a self-contained SVG; `outputs` are what each method computes at the points x."""
    exact = function.of(x)
    errors = {name: np.asarray(y - exact) for name, y in outputs.items()}
    parts = [opening(_WIDTH, 520, f"{function.name} and the errors of its tables")]
    largest = max(float(np.abs(e).max()) for e in errors.values()) or 1.0
    curves = (
        ({name: y for name, y in outputs.items()}, float(exact.min()), float(exact.max())),
        (errors, -largest, largest),
    )
    for (top, height), (series, low, high), title in zip(
        _PANELS, curves, (function.name, "error"), strict=True
    ):
        parts.append(text(_LEFT, top - 10, title))
        for value in ticks(low, high):
            y = top + (high - value) / (high - low) * height
            parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y))
            parts.append(text(_LEFT - 8, y + 4, f"{value:.3g}", "td-dim", "end"))
        for values, colour in zip(series.values(), _COLOURS, strict=False):
            parts.append(_path(x, values, low, high, top, height, colour))
    bottom = sum(_PANELS[1])
    for value in ticks(float(x[0]), float(x[-1]), 8):
        at = _across(x, value)
        parts.append(line(at, _PANELS[0][0], at, bottom))
        parts.append(text(at, bottom + 18, f"{value:g}", "td-dim", "middle"))
    for k, (name, colour) in enumerate(zip(outputs, _COLOURS, strict=False)):
        mse = float(np.mean(errors[name] ** 2))
        left = _LEFT + 220 * k
        parts.append(f'<rect x="{left}" y="{bottom + 30}" width="14" height="4" fill="{colour}"/>')
        parts.append(text(left + 20, bottom + 36, f"{name}, MSE {mse:.1e}"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _across(x: Floats, value: float) -> float:
    return _LEFT + (value - float(x[0])) / float(x[-1] - x[0]) * (_WIDTH - _LEFT - _RIGHT)


def _path(x: Floats, y: Floats, low: float, high: float, top: int, height: int, colour: str) -> str:
    across = [_across(x, float(v)) for v in x]
    up = top + (high - np.clip(y, low, high)) / (high - low) * height
    steps = " ".join(
        f"{'L' if k else 'M'}{a:.1f} {b:.1f}"
        for k, (a, b) in enumerate(zip(across, up, strict=True))
    )
    return f'<path d="{steps}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
