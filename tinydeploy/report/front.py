"""Turn alternative plans of one network into a picture: RAM across, instructions up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.report.svg import compact, line, opening, text, ticks, titled

_WIDTH, _HEIGHT = 960, 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 78, 26, 30, 52


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """Describe one plan: bytes of arena and flash, instructions (estimated) of one inference.

    flash_bytes: of constants, None where not known. mac_factor: multiply-accumulates
    executed, relative to those of the network.
    """

    label: str
    arena_bytes: int
    instructions: int
    flash_bytes: int | None
    mac_factor: float
    chosen: bool


def undominated(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Return the points that no other beats in RAM and instructions, by growing RAM."""
    best: list[FrontPoint] = []
    for p in sorted(points, key=lambda p: (p.arena_bytes, p.instructions)):
        if not best or p.instructions < best[-1].instructions:
            best.append(p)
    return best


def front_svg(points: Sequence[FrontPoint]) -> str:
    """Return a self-contained SVG of at least one point; those on the front are joined."""
    front = undominated(points)
    low_x, high_x = _range([p.arena_bytes for p in points])
    low_y, high_y = _range([p.instructions for p in points])
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (value - low_x) / (high_x - low_x) * inner_w

    def y(value: float) -> float:
        return _TOP + (high_y - value) / (high_y - low_y) * inner_h

    parts = [opening(_WIDTH, _HEIGHT, "Plans of this network: RAM against instructions")]
    for value in ticks(low_y, high_y):
        parts.append(line(_LEFT, y(value), _WIDTH - _RIGHT, y(value)))
        parts.append(text(_LEFT - 8, y(value) + 4, compact(value), "td-dim", "end"))
    for value in ticks(low_x, high_x, 7):
        parts.append(line(x(value), _TOP, x(value), _HEIGHT - _BOTTOM))
        parts.append(text(x(value), _HEIGHT - _BOTTOM + 18, f"{value:,.0f}", "td-dim", "middle"))
    parts.append(text(_LEFT - 8, _TOP - 10, "instructions", "td-dim", "start"))
    parts.append(text(_WIDTH - _RIGHT, _HEIGHT - 10, "bytes of arena", "td-dim", "end"))
    steps = " ".join(
        f"{'M' if k == 0 else 'L'}{x(p.arena_bytes):.1f} {y(p.instructions):.1f}"
        for k, p in enumerate(front)
    )
    parts.append(f'<path class="td-line" d="{steps}" stroke-width="2"/>')
    taken: list[tuple[float, float, float]] = []  # left, right and height of labels
    for p in sorted(points, key=lambda p: (not p.chosen, p not in front, p.arena_bytes)):
        at_x, at_y = x(p.arena_bytes), y(p.instructions)
        tip = (
            f"{p.label}\n{p.arena_bytes:,} bytes of arena, about {p.instructions:,} instructions, "
            f"{p.mac_factor:.2f} times the MACs"
        )
        if p.flash_bytes is not None:
            tip += f", {p.flash_bytes:,} bytes of constants in flash"
        css = "td-accent" if p in front else "td-dim"
        where = f'cx="{at_x:.1f}" cy="{at_y:.1f}"'
        dot = f'<circle class="{css}" {where} r="4.5"/>'
        halo = f'<circle class="td-mark" {where} r="9" stroke-width="2"/>' if p.chosen else ""
        parts.append(titled(tip, dot, halo))
        words = f"{p.label}: {p.arena_bytes:,}" + (" (chosen)" if p.chosen else "")
        width = 6.2 * len(words)
        left = at_x + 12 if at_x + 12 + width < _WIDTH - 8 else at_x - 12 - width
        height = at_y - 8
        if all(left > r + 8 or left + width < n - 8 or abs(height - h) > 14 for n, r, h in taken):
            taken.append((left, left + width, height))
            parts.append(text(left, height, words, "td-fg" if p in front else "td-dim"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _range(values: Sequence[int]) -> tuple[float, float]:
    """Return a range that holds all values with some room around them."""
    low, high = min(values), max(values)
    room = max((high - low) * 0.12, high * 0.02, 1)
    return max(0.0, low - room), high + room
