"""Turn a MemoryPlan into a picture: time across, bytes up, each row where and when it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.plan.describe import Place, peak, peak_call, places
from tinydeploy.plan.layout import MemoryPlan, Rows
from tinydeploy.report.svg import line, number, opening, short_name, text, ticks, titled

_WIDTH, _HIGH = 960, 390  # of the picture, and of the arena in it
_LEFT, _TOP, _RIGHT = 70, 66, 18
_BRACKETS = 12  # height of the strip below the axis that shows the streamed segments
_THIN = 3.0  # pixels of width below which calls share a point of the line of bytes in use
_LETTER = 6.2  # width of a letter or digit at the size of labels
_GREY = {"scratch": "scratch memory", "padding": "row of padding"}

# From the network's input to its output; tensors have the colour of the node that makes them.
_HUES = ("#6f9ff2", "#4fc1e8", "#4fcfae", "#9ad667", "#f0d050", "#f6a55a")
_INPUT, _OUTPUT = "#b595f0", "#f08cbb"


@dataclass(frozen=True, slots=True)
class Axes:
    """Turn calls and bytes into the picture's coordinates.

    edges: where each call begins, in pixels, from call -1 (the inputs are there) to the end of the
    one after the last (so are the outputs).
    """

    edges: NDArray[np.float64]
    floor: float
    pixels: float  # per byte

    def x(self, call: float) -> float:
        return float(self.edges[int(call) + 1])

    def y(self, offset: float) -> float:
        return self.floor - offset * self.pixels


def axes_of(plan: MemoryPlan, top: float = _TOP) -> Axes:
    """Return axes on which a streamed segment is as wide as the root of its calls says.

    So nodes that run whole stay visible beside segments of hundreds of calls.
    """
    widths = [1.0]
    for first, end in sorted(plan.items.calls.values()):
        widths += [1 / sqrt(end - first)] * (end - first)
    edges = np.concatenate([[0.0], np.cumsum([*widths, 1.0])])
    inner = _WIDTH - _LEFT - _RIGHT
    return Axes(_LEFT + edges / edges[-1] * inner, top + _HIGH, _HIGH / max(plan.arena_bytes, 1))


def memory_map_svg(graph: Graph, plan: MemoryPlan, *, headline: bool = True) -> str:
    """Return a self-contained SVG of the arena over the calls of one inference.

    A path per buffer and per tensor held in rows, the bytes in use at each call as a line;
    streamed segments have a bracket below the axis.
    """
    found = places(graph, plan)
    shift = 0 if headline else 24
    axes = axes_of(plan, _TOP - shift)
    whole = [graph.nodes[s.nodes[0]].op for s in plan.segments if s.kind == "layer"]
    below = _BRACKETS + 24 + 4.2 * max((len(op) + 3 for op in whole), default=8)
    parts = [opening(_WIDTH, round(axes.floor + below), f"Memory map of {graph.name}")]
    if headline:
        words = f"{graph.name}: arena {plan.arena_bytes:,} bytes"
        parts.append(text(_LEFT, 22, words, size=15, more=' font-weight="600"'))
    parts.append(_legend(graph, found, 44 - shift))
    for value in ticks(0, max(plan.arena_bytes, 1), 5):
        parts.append(line(_LEFT, axes.y(value), _WIDTH - _RIGHT, axes.y(value)))
        parts.append(text(_LEFT - 6, axes.y(value) + 4, f"{value:,.0f}", "td-dim", "end"))
    parts += [_shape(graph, place, axes) for place in found]
    parts += _borders(plan, axes.y)
    parts += _bounds(graph, plan, axes)
    parts += _curve(graph, plan, axes)
    parts += [_label(place, axes) for place in found if place.kind != "ring"]
    parts.append(line(_LEFT, axes.floor, _WIDTH - _RIGHT, axes.floor, "td-axis", 1))
    parts += _time(graph, plan, axes)
    parts.append("</svg>")
    return "\n".join(p for p in parts if p) + "\n"


def _legend(graph: Graph, found: tuple[Place, ...], y: float) -> str:
    kinds = {p.kind for p in found}
    entries: list[tuple[str, tuple[str, ...]]] = []
    if any(t in graph.inputs for p in found for t in p.tensors):
        entries.append(("input", (_INPUT,)))
    if kinds & {"tensor", "ring"}:
        entries.append(("tensors, from first to last layer", _HUES))
    if "output" in kinds:
        entries.append(("output", (_OUTPUT,)))
    parts, at = [], float(_LEFT)
    for words, colours in entries:
        for colour in colours:
            parts.append(f'<rect fill="{colour}" x="{at:.0f}" y="{y - 9:.0f}" width="11" '
                         'height="11"/>')  # fmt: skip
            at += 11
        parts.append(text(at + 5, y, words, "td-dim"))
        at += 23 + _wide(words)
    for kind, words in _GREY.items():
        if kind in kinds:
            parts.append(f'<rect class="td-{kind}" x="{at:.0f}" y="{y - 9:.0f}" width="11" '
                         'height="11"/>')  # fmt: skip
            parts.append(text(at + 16, y, words, "td-dim"))
            at += 34 + _wide(words)
    parts.append(line(at, y - 4, at + 16, y - 4, "td-curve", 1.6))
    parts.append(text(at + 21, y, "bytes in use", "td-dim"))
    return "".join(parts)


def _wide(words: str) -> float:
    """Return about how many pixels a text takes in the legend."""
    return sum(3.6 if c in "fijlrt,. " else 9.6 if c in "mw" else 6.4 for c in words)


def _colour(graph: Graph, place: Place) -> str:
    """Return the attribute that fills a place: by kind, tensors by who makes them."""
    if place.kind in _GREY:
        return f'class="td-{place.kind}"'
    if place.kind in ("input", "output"):
        return f'fill="{_INPUT if place.kind == "input" else _OUTPUT}"'
    if place.tensors[0] in graph.inputs:
        return f'fill="{_INPUT}"'
    maker = next(p for p, n in enumerate(graph.nodes) if place.tensors[0] in n.outputs)
    # The first layers have most bytes, so they get more of the colours.
    at = (maker / max(len(graph.nodes) - 1, 1)) ** 0.7 * (len(_HUES) - 1)
    low = min(int(at), len(_HUES) - 2)
    shade = 1.0 if maker % 2 else 0.93  # neighbours differ
    ends = [[int(h[k : k + 2], 16) for k in (1, 3, 5)] for h in _HUES[low : low + 2]]
    mixed = [round(shade * (a + (b - a) * (at - low))) for a, b in zip(*ends, strict=True)]
    return f'fill="#{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}"'


def _shape(graph: Graph, place: Place, axes: Axes) -> str:
    """Return all pieces of a place as one path, with what there is to say about it."""
    boxes = _boxes(place.pieces, axes)
    if not len(boxes):
        return ""
    path = "".join(
        f"M{number(left)} {number(top)}h{number(wide)}v{number(high)}h{number(-wide)}z"
        for left, top, wide, high in boxes.tolist()
    )
    # A line between rows, where they are large enough to be told apart.
    apart = np.median(boxes[:, 3]) >= 4 and np.median(boxes[:, 2]) >= 2
    edge = ' class="td-edge"' if apart and place.kind not in _GREY else ""
    colour = _colour(graph, place)
    return titled(_tip(place), f'<path {colour}{edge} d="{path}"/>')


def _boxes(pieces: Rows, axes: Axes) -> NDArray[np.float64]:
    """Return (left, top, width, height) of pieces, [n, 4]."""
    last = len(axes.edges) - 3
    boxes = [
        (
            axes.x(max(first, -1)),
            axes.y(end),
            axes.x(min(dead, last) + 1) - axes.x(max(first, -1)),
            axes.y(start) - axes.y(end),
        )
        for start, end, first, dead in pieces.tolist()
    ]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _tip(place: Place) -> str:
    memory = f" of {place.memory}" if place.memory else ""
    steps = f"steps {place.first} to {place.last}"
    if place.kind == "ring":
        size, top = place.bytes // place.rows_held, place.inside + place.top - place.offset
        return (
            f"{place.name}\n{place.rows} rows of {size:,} bytes, at most {place.rows_held} held at "
            f"a time: {place.bytes:,} bytes\nbetween {place.inside:,} and {top:,}{memory}, each "
            f"row at a place of its own\n{steps}"
        )
    tip = f"{place.name}\n{place.bytes:,} bytes at {place.inside:,}{memory}"
    if len(place.pieces) > 1 and place.rows:
        tip += f"\n{place.rows} rows, each in use as long as it is needed"
    return f"{tip}\n{steps}"


def _borders(plan: MemoryPlan, y: Callable[[float], float]) -> list[str]:
    """Return a line where one memory ends and the next begins, and their names."""
    parts, end = [], 0
    for arena in plan.several:
        words = f"{arena.memory}: {arena.bytes:,} bytes"
        parts.append(text(_WIDTH - _RIGHT - 4, y(end) - 5, words, "td-dim", "end"))
        end += arena.bytes
        parts.append(line(_LEFT, y(end), _WIDTH - _RIGHT, y(end), "td-mark", 1))
    return parts


def _label(place: Place, axes: Axes) -> str:
    """Return a buffer's size, and its name where there is room, in its largest rectangle."""
    left, top, wide, high = _largest(_boxes(place.pieces, axes))
    wide -= 6
    at_x, at_y = left + 3 + wide / 2, top + high / 2
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


def _largest(boxes: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the largest rectangle (left, top, width, height) inside boxes that lie in a stack."""
    best = (0.0, 0.0, 0.0, 0.0)
    stack = boxes[np.argsort(boxes[:, 1])]
    for k in range(len(stack)):
        left, right, bottom = -np.inf, np.inf, stack[k, 1]
        for x, y, wide, high in stack[k:].tolist():
            left, right = max(left, x), min(right, x + wide)
            if y > bottom + 0.01 or right <= left:
                break
            bottom = y + high
            if (right - left) * (bottom - stack[k, 1]) > best[2] * best[3]:
                best = (left, stack[k, 1], right - left, bottom - stack[k, 1])
    return best


def _bounds(graph: Graph, plan: MemoryPlan, axes: Axes) -> list[str]:
    """Return lines at the arena's top and at what no plan of these lifetimes can be below."""
    top, bound = axes.y(plan.arena_bytes), axes.y(plan.lower_bound_bytes)
    right = _WIDTH - _RIGHT
    words = f"arena {plan.arena_bytes:,}"
    words += ", the least possible" if plan.optimal else f", bound {plan.lower_bound_bytes:,}"
    parts = [line(_LEFT, top, right, top, "td-mark", 1.2)]
    if plan.segments and _peak(graph, plan, axes)[0] > right - 360:
        parts.append(text(_LEFT, top - 6, words, "td-dim"))
    else:
        parts.append(text(right, top - 6, words, "td-dim", "end"))
    if not plan.optimal:
        parts.append(line(_LEFT, bound, right, bound, "td-mark", 0.9, ' stroke-dasharray="4 3"'))
    return parts


def _curve(graph: Graph, plan: MemoryPlan, axes: Axes) -> list[str]:
    """Return the bytes in use at each call as a line, and a mark where they are most.

    Of calls too narrow to be seen, the most that is in use at one of them.
    """
    if not plan.segments:
        return []
    alive = plan.items.alive.tolist()
    inputs = [i.pieces[i.pieces[:, 2] < 0] for i in plan.items.items]
    points = [(axes.x(-1), sum(int((p[:, 1] - p[:, 0]).sum()) for p in inputs))]
    for call, used in enumerate(alive):
        left, most = points[-1]
        if call and axes.x(call) - left < _THIN and axes.x(call + 1) - axes.x(call) < _THIN:
            points[-1] = (left, max(most, used))
        elif used != most:
            points.append((axes.x(call), used))
    path = "".join(f"H{number(left)}V{number(axes.y(used))}" for left, used in points)
    path = f"M{number(axes.x(-1))} {number(axes.y(points[0][1]))}{path}"
    path += f"H{number(axes.x(len(alive)))}"
    at, most = _peak(graph, plan, axes)
    height, words = axes.y(most), f"most in use: {most:,} bytes"
    late = at > _WIDTH - _RIGHT - 200
    return [
        f'<path class="td-halo" d="{path}"/><path class="td-curve" stroke-width="1.2" d="{path}"/>',
        titled(words, f'<circle class="td-dot" cx="{at:.1f}" cy="{height:.1f}" r="3.2"/>'),
        text(at + (5 if late else -5), axes.y(plan.arena_bytes) - 6,
             f"{words} ▾" if late else f"▾ {words}", "td-dim", "end" if late else "start"),
    ]  # fmt: skip


def _peak(graph: Graph, plan: MemoryPlan, axes: Axes) -> tuple[float, int]:
    """Return where across most bytes are in use, and how many."""
    call = peak_call(plan, peak(graph, plan))
    return (axes.x(call) + axes.x(call + 1)) / 2, int(plan.items.alive[call])


def _time(graph: Graph, plan: MemoryPlan, axes: Axes) -> list[str]:
    """Return brackets under segments that run row by row, and what runs when."""
    streamed = {s.nodes[0]: s.nodes for s in plan.segments if s.kind == "streamed"}
    end = len(plan.items.alive)
    slots = {-1: (-1, 0), **plan.items.calls, len(graph.nodes): (end - 1, end)}
    parts, free, y = [], 0.0, axes.floor
    for p, (first, last) in sorted(slots.items()):
        left, right = axes.x(first), axes.x(last)
        words = "input" if p < 0 else "output"
        if 0 <= p < len(graph.nodes):
            words = f"{p} {graph.nodes[p].op.lower()}"
        if p in streamed:
            spellings = _streamed(streamed[p], last - first)
            bracket = (
                f'<path class="td-line" stroke-width="1.6" d="M{number(left + 1)} '
                f'{number(y + 3)}v6H{number(right - 1)}v-6"/>'
            )
            parts.append(titled(spellings[0], bracket))
            fitting = [s for s in spellings if 5.7 * len(s) < right - left]
            if fitting:
                parts.append(text((left + right) / 2, y + 24, fitting[0], "td-dim", "middle"))
                continue
            words = spellings[-2]
        at = (left + right) / 2
        if at >= free:  # as many names as there is room for
            turn = f' transform="rotate(-60 {at + 3:.1f} {y + _BRACKETS + 10:.1f})"'
            parts.append(text(at + 3, y + _BRACKETS + 10, words, "td-dim", "end", 9, turn))
            free = at + 11
    return parts


def _streamed(nodes: tuple[int, ...], calls: int) -> tuple[str, ...]:
    """Return what to say below a segment that runs row by row, the longest first."""
    if len(nodes) == 1:
        return (f"node {nodes[0]} runs row by row, in {calls} calls",
                f"{nodes[0]} row by row", f"{nodes[0]}")  # fmt: skip
    span = f"{nodes[0]} to {nodes[-1]}"
    return (f"nodes {span} run together, row by row, in {calls} calls",
            f"nodes {span}, row by row", f"{span} row by row", span)  # fmt: skip
