"""Turn a MemoryPlan into a picture: time across, bytes up, one rectangle per buffer."""

from __future__ import annotations

from collections.abc import Callable

from tinydeploy.ir import Graph
from tinydeploy.plan.describe import Place, Shared, peak, places, shared
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.report.svg import line, opening, short_name, text, ticks, titled

_WIDTH, _HEIGHT = 960, 520
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 62, 18, 122
_LEGEND = {
    "input": "input", "output": "output", "tensor": "whole tensor", "ring": "ring of rows",
    "scratch": "scratch", "padding": "padding row",
}  # fmt: skip
_BRACKETS = 12  # height of the strip below the axis that shows the streamed segments

_LETTER = 6.2  # width of a letter or digit at the size of labels

Scale = Callable[[float], float]


def memory_map_svg(graph: Graph, plan: MemoryPlan, *, headline: bool = True) -> str:
    """Return a self-contained SVG of the arena over the steps of one inference.

    Bytes that two buffers share while both are alive are hatched; streamed segments have a
    bracket below the axis.
    """
    found = places(graph, plan)
    pairs = shared(found)
    steps = plan.steps + 2  # before the first and after the last node
    height = max(plan.arena_bytes, 1)
    shift = 0 if headline else 24
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + (step + 1) / steps * inner_w

    def y(offset: float) -> float:
        return _TOP - shift + inner_h * (1 - offset / height)

    parts = [
        opening(_WIDTH, _HEIGHT - shift, f"Memory map of {graph.name}"),
        '<defs><pattern id="td-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="td-hatch" x1="0" y1="0" x2="0" y2="6" '
        'stroke-width="1.4" opacity=".55"/></pattern></defs>',
    ]
    if headline:
        state = "least possible" if plan.optimal else f"lower bound {plan.lower_bound_bytes:,}"
        words = f"{graph.name}: arena {plan.arena_bytes:,} bytes ({state})"
        parts.append(text(_LEFT, 22, words, size=15, more=' font-weight="600"'))
    parts.append(_legend(found, bool(pairs), 44 - shift))
    for value in ticks(0, height, 5):
        parts.append(line(_LEFT, y(value), _WIDTH - _RIGHT, y(value)))
        parts.append(text(_LEFT - 6, y(value) + 4, f"{value:,.0f}", "td-dim", "end"))
    parts += [_box(place, x, y) for place in found]
    parts += _borders(plan, y)
    parts += [_hatch(pair, x, y) for pair in pairs]
    parts += [_label(place, pairs, x, y) for place in found]
    parts.append(line(_LEFT, y(height), _WIDTH - _RIGHT, y(height), "td-mark", 1,
                      ' stroke-dasharray="5 4"'))  # fmt: skip
    if plan.segments:
        nodes = peak(graph, plan).segment.nodes
        at = (x(nodes[0]) + x(nodes[-1] + 1)) / 2
        parts.append(text(at, y(height) - 5, "▾ peak", "td-dim", "middle"))
    parts.append(line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "td-axis", 1))
    parts += _brackets(plan, x, y(0))
    parts += _labels(graph, plan, x, y(0) + _BRACKETS + 10)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _legend(found: tuple[Place, ...], overlaps: bool, y: float) -> str:
    kinds = {p.kind for p in found}
    entries = [(f"td-{kind}", label) for kind, label in _LEGEND.items() if kind in kinds]
    parts, at = [], float(_LEFT)
    for css, label in entries:
        parts.append(
            f'<rect class="{css}" x="{at:.0f}" y="{y - 9}" width="11" height="11" rx="2"/>'
        )
        parts.append(text(at + 16, y, label, "td-dim"))
        at += 34 + 6 * len(label)
    if overlaps:
        parts.append(
            f'<rect class="td-tensor" x="{at:.0f}" y="{y - 9}" width="11" height="11" rx="2"/>'
            f'<rect fill="url(#td-hatch)" x="{at:.0f}" y="{y - 9}" width="11" height="11"/>'
        )
        parts.append(text(at + 16, y, "shared by input and output", "td-dim"))
    return "".join(parts)


def _box(place: Place, x: Scale, y: Scale) -> str:
    left, right = x(place.first), x(place.last + 1)
    upper, lower = y(place.end), y(place.offset)
    tip = f"{place.name}\n{place.bytes:,} bytes at {place.inside:,}"
    tip += f" of {place.memory}" if place.memory else ""
    if place.kind == "ring":
        tip += f", a ring of {place.rows_held} of {place.rows} rows"
    tip += f"\nsteps {place.first} to {place.last}"
    box = (
        f'<rect class="td-{place.kind}" x="{left:.1f}" y="{upper:.1f}" '
        f'width="{right - left:.1f}" height="{max(lower - upper, 0.5):.1f}" rx="2" '
        'stroke-width="0.8"/>'
    )
    return titled(tip, box)


def _borders(plan: MemoryPlan, y: Scale) -> list[str]:
    """Return a line where one memory ends and the next begins, and their names."""
    parts, end = [], 0
    for arena in plan.several:
        words = f"{arena.memory}: {arena.bytes:,} bytes"
        parts.append(text(_WIDTH - _RIGHT - 4, y(end) - 5, words, "td-dim", "end"))
        end += arena.bytes
        parts.append(line(_LEFT, y(end), _WIDTH - _RIGHT, y(end), "td-mark", 1))
    return parts


def _label(place: Place, pairs: tuple[Shared, ...], x: Scale, y: Scale) -> str:
    """Return a buffer's size, and its name where there is room, beside what it shares."""
    first, last = place.first, place.last + 1
    for pair in pairs:
        if place in (pair.lower, pair.upper):
            if pair.first - first >= last - pair.last - 1:
                last = min(last, max(pair.first, first))
            else:
                first = max(first, min(pair.last + 1, last))
    if first >= last:
        first, last = place.first, place.last + 1
    wide, high = x(last) - x(first) - 6, y(place.offset) - y(place.end)
    at_x, at_y = (x(first) + x(last)) / 2, (y(place.offset) + y(place.end)) / 2
    words, turn = f"{place.bytes:,}", ""
    room = wide
    if wide < _LETTER * len(words) and wide > 4 and high > wide:
        room, turn = high - 6, f' transform="rotate(-90 {at_x:.1f} {at_y:.1f})"'
    elif high < 12:
        return ""
    if room < _LETTER * len(words):
        return ""
    name = short_name(place.name, 200)
    letters = int(room / _LETTER) - len(words) - 2
    if letters >= 8 and place.tensors:
        words = f"{name if len(name) <= letters else name[: letters - 1] + '…'}  {words}"
    return text(at_x, at_y + 4, words, "td-ink", "middle", 11, turn + ' pointer-events="none"')


def _hatch(pair: Shared, x: Scale, y: Scale) -> str:
    left, right = x(pair.first), x(pair.last + 1)
    upper, lower = y(pair.offset + pair.bytes), y(pair.offset)
    tip = (
        f"{pair.bytes:,} bytes shared: {short_name(pair.lower.name)} is written where "
        f"{short_name(pair.upper.name)} was read already"
    )
    box = (
        f'<rect fill="url(#td-hatch)" x="{left:.1f}" y="{upper:.1f}" '
        f'width="{right - left:.1f}" height="{lower - upper:.1f}"/>'
    )
    return titled(tip, box)


def _brackets(plan: MemoryPlan, x: Scale, y: float) -> list[str]:
    """Return a bracket under every segment that is executed row by row."""
    parts = []
    for segment in plan.segments:
        if segment.kind != "streamed":
            continue
        first, last = segment.nodes[0], segment.nodes[-1]
        left, right = x(first) + 1, x(last + 1) - 1
        tip = f"nodes {first} to {last} run together, row by row, in {len(segment.calls)} steps"
        path = (
            f'<path class="td-line" stroke-width="1.6" d="M{left:.1f} {y + 3:.1f}v6'
            f'H{right:.1f}v-6"/>'
        )
        parts.append(titled(tip, path))
    return parts


def _labels(graph: Graph, plan: MemoryPlan, x: Scale, y: float) -> list[str]:
    """Return the operators' names below the axis, as many as there is room for."""
    every = max(1, -(-plan.steps // 56))
    words = [(-1, "input"), *((p, f"{p} {n.op.lower()}") for p, n in enumerate(graph.nodes))]
    parts = []
    for position, label in [*words[::every], (plan.steps, "output")]:
        at = x(position + 0.5)
        turn = f' transform="rotate(-60 {at + 3:.1f} {y:.1f})"'
        parts.append(text(at + 3, y, label, "td-dim", "end", 9, turn))
    return parts
