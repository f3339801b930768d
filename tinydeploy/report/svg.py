"""Turn figures into pieces of SVG: one style for all pictures, text that cannot inject, ticks."""

from __future__ import annotations

import math
from html import escape

# Printed pages stay light; pictures inlined in a page and pictures of their own look the same.
STYLE = (
    "<style>.td-bg{fill:#fff}.td-fg{fill:#1c2127}.td-dim{fill:#667080}.td-grid{stroke:#d8dde3}"
    ".td-ink{fill:#10151c;stroke:#fff;stroke-opacity:.45;stroke-width:2.5;paint-order:stroke}"
    ".td-axis{stroke:#98a2ae;fill:none}.td-mark{stroke:#d1242f;fill:none}"
    ".td-accent{fill:#0969da}.td-line{stroke:#0969da;fill:none}"
    ".td-scratch{fill:#c3c9d1}.td-padding{fill:#aab2bc}.td-edge{stroke:#fff;stroke-width:.4}"
    ".td-curve{stroke:#10151c;fill:none}.td-dot{fill:#10151c;stroke:#fff}"
    ".td-halo{stroke:#fff;stroke-width:2.6;stroke-opacity:.7;fill:none}"
    "@media screen and (prefers-color-scheme:dark){.td-bg{fill:#15191f}.td-fg{fill:#e8ecf1}"
    ".td-dim{fill:#98a3b0}.td-grid{stroke:#313843}.td-axis{stroke:#5c6673}"
    ".td-accent{fill:#58a6ff}.td-line{stroke:#58a6ff}"
    ".td-mark{stroke:#ff7b72}.td-padding{fill:#98a2ae}.td-scratch{fill:#77818d}"
    ".td-edge{stroke:#15191f}.td-curve{stroke:#fff}.td-dot{fill:#fff;stroke:#15191f}"
    ".td-halo{stroke:#15191f}}</style>"
)


def opening(width: int, height: int, title: str) -> str:
    """Return the start of a picture with its title for people who cannot see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" role="img">'
        f"<title>{escape(title)}</title>{STYLE}"
        f'<rect class="td-bg" width="{width}" height="{height}"/>'
    )


def text(x: float, y: float, words: str, css: str = "td-fg", anchor: str = "start",
         size: int = 11, more: str = "") -> str:  # fmt: skip
    """Return a line of text; the words are escaped, `more` (attributes) is not."""
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-size="{size}"{more}>{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, css: str = "td-grid", width: float = 0.6,
         more: str = "") -> str:  # fmt: skip
    """Return a straight line."""
    return (
        f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke-width="{width}"{more}/>'
    )


def number(value: float) -> str:
    """Return a coordinate as short as a hundredth of a pixel allows."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def titled(tip: str, *parts: str) -> str:
    """Group parts under a text that appears when the pointer rests on them."""
    return f"<g><title>{escape(tip)}</title>{''.join(parts)}</g>"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from low to high."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= span / wanted)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def compact(value: float) -> str:
    """Return a count with at most four digits: 950, 12.3 k, 7.49 M."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= limit:
            scaled = value / (1e3 if unit == " k" else limit)
            return f"{scaled:.3g}{unit}" if scaled < 1000 else f"{scaled:,.0f}{unit}"
    return f"{value:,.0f}"


def short_name(name: str, limit: int = 40) -> str:
    """Return the telling end of a tensor's name; converters join the names of fused operators."""
    first = name.split(";")[0]
    return first if len(first) <= limit else f"...{first[-limit + 3 :]}"
