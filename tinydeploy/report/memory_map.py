"""Turn a MemoryPlan into a picture: time across, bytes up, one rectangle per buffer."""

from __future__ import annotations

from html import escape

from tinydeploy.ir import Graph
from tinydeploy.plan.layout import MemoryPlan

_WIDTH, _HEIGHT = 960, 480
_LEFT, _TOP, _RIGHT, _BOTTOM = 78, 46, 18, 96
_HUES = (212, 152, 32, 280, 4, 184, 330, 96)


def memory_map_svg(graph: Graph, plan: MemoryPlan) -> str:
    """Return a self-contained SVG of the arena over the steps of one inference."""
    steps = plan.steps + 2  # before the first and after the last node
    top = max(plan.arena_bytes, 1)
    inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(step: float) -> float:
        return _LEFT + (step + 1) / steps * inner_w

    def y(offset: float) -> float:
        return _TOP + inner_h * (1 - offset / top)

    state = "least possible" if plan.optimal else f"lower bound {plan.lower_bound_bytes:,}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="11" role="img">',
        f"<title>Memory map of {escape(graph.name)}</title>",
        "<style>.bg{fill:#fff}.fg{fill:#222}.dim{fill:#666}.line{stroke:#bbb}"
        "@media(prefers-color-scheme:dark){.bg{fill:#16181c}.fg{fill:#eee}.dim{fill:#aaa}"
        ".line{stroke:#444}}</style>",
        f'<rect class="bg" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="fg" x="{_LEFT}" y="24" font-size="15" font-weight="600">'
        f"{escape(graph.name)}: arena {plan.arena_bytes:,} bytes ({state})</text>",
    ]
    for k in range(5):
        value = top * k / 4
        parts.append(
            f'<line class="line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}" stroke-width="0.6"/>'
            f'<text class="dim" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">'
            f"{round(value):,}</text>"
        )
    for k, (buffer, offset) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
        left, right = x(buffer.first), x(buffer.last + 1)
        upper, lower = y(offset + buffer.bytes), y(offset)
        hue = _HUES[k % len(_HUES)]
        names = ", ".join(graph.tensors[t].name for t in buffer.tensors) or buffer.label
        tip = (
            f"{names}\n{buffer.bytes:,} bytes at {offset:,}, steps {buffer.first} to {buffer.last}"
        )
        parts.append(
            f'<g><title>{escape(tip)}</title><rect x="{left:.1f}" y="{upper:.1f}" '
            f'width="{right - left:.1f}" height="{max(lower - upper, 0.5):.1f}" rx="2" '
            f'fill="hsl({hue} 60% 58%)" stroke="hsl({hue} 55% 34%)" stroke-width="0.8"/>'
        )
        if right - left > 34 and lower - upper > 13:
            parts.append(
                f'<text x="{(left + right) / 2:.1f}" y="{(upper + lower) / 2 + 4:.1f}" '
                f'text-anchor="middle" fill="#111">{buffer.bytes:,}</text>'
            )
        parts.append("</g>")
    every = max(1, -(-plan.steps // 40))
    labels = [(-1, "input"), *((p, n.op.lower()) for p, n in enumerate(graph.nodes))]
    for position, text in [*labels[::every], (plan.steps, "output")]:
        at = x(position + 0.5)
        label = text if position in (-1, plan.steps) else f"{position} {text}"
        parts.append(
            f'<text class="dim" font-size="9" transform="translate({at + 3:.1f} '
            f'{_HEIGHT - _BOTTOM + 10}) rotate(-60)" text-anchor="end">{escape(label)}</text>'
        )
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
