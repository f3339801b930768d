"""Turn a Document and its plan into one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tinydeploy import __version__, resources
from tinydeploy.ir import Graph
from tinydeploy.plan.describe import places, segment_views
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.report.document import Document
from tinydeploy.report.front import FrontPoint, front_svg, undominated
from tinydeploy.report.memory_map import memory_map_svg
from tinydeploy.report.svg import compact, short_name
from tinydeploy.targets import Target

_KINDS = {"instructions": "counted in the emulator", "cycles": "measured on the board",
          "nanoseconds": "measured on this computer"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Say how to get the same result: the command, and the versions of all that took part."""

    command: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Describe a piece of a bar: its share of the whole, 0 to 100 %."""

    label: str
    bytes: int
    percent: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Describe how much of a memory is used; `size` is None where the target sets no limit."""

    name: str
    used: int
    size: int | None
    parts: tuple[Part, ...]
    note: str = ""

    @property
    def percent(self) -> float:
        return 100 * self.used / self.size if self.size else 0.0


@cache
def environment() -> Environment:
    """Return the Jinja environment for HTML: everything is escaped unless it is Markup."""
    env = Environment(
        loader=FileSystemLoader(resources.folder("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
    )
    env.filters["count"] = lambda value: f"{value:,}"
    env.filters["compact"] = compact
    env.filters["short_name"] = short_name
    env.filters["breakable"] = lambda words: escape(words).replace("_", Markup("_<wbr>"))
    return env


def report_html(
    document: Document,
    graph: Graph,
    plan: MemoryPlan,
    reproduction: Reproduction,
    target: Target | None = None,
    front: Sequence[FrontPoint] = (),
) -> str:
    """Return the page. It holds no script and refers to nothing outside itself.

    `front` are the plans that were weighed against each other. The page has no date, so that the
    same deployment gives the same bytes.
    """
    # memory_map_svg and front_svg escape what comes from the model themselves.
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            d=document,
            target=target,
            version=__version__,
            fits=_fits(document, target),
            memory_map=Markup(memory_map_svg(graph, plan, headline=False)),
            front=Markup(front_svg(front)) if front else "",
            front_points=sorted(front, key=lambda p: (p.arena_bytes, p.instructions)),
            front_beside=len(undominated(front)) < len(front),
            front_flash=any(p.flash_bytes is not None for p in front),
            costs=_costs(document),
            unit_kind=_KINDS.get(document.profile_run.unit, "") if document.profile_run else "",
            segments=_segments(graph, plan),
            buffers=sorted(places(graph, plan), key=lambda p: (p.first, p.offset)),
            reproduction=reproduction,
        )
    )


def _fits(document: Document, target: Target | None) -> list[Fit]:
    """Return RAM and flash with what they are made of; before a build only the arena is known."""
    m = document.memory
    bounded = target is not None and target.architecture != "host"
    ram = target.ram_bytes if target and bounded else None
    flash = target.flash_bytes if target and bounded else None
    uses = [u for u in m.memories if u.used_bytes or u.arena_bytes]
    if len(uses) > 2 or sum(u.arena_bytes > 0 for u in uses) > 1:
        kinds = {"ram": "stack, variables", "flash": "code, constants"}
        return [
            _fit(
                u.name,
                max(u.used_bytes or 0, u.arena_bytes),
                u.size,
                [("arena", u.arena_bytes), (kinds[u.kind], (u.used_bytes or 0) - u.arena_bytes)],
            )
            for u in uses
        ]
    if m.ram_bytes is None or m.flash_bytes is None:
        note = "the arena alone: firmware and stack are known after a build"
        parts = [("arena", m.arena_bytes)]
        return [_fit("RAM", m.arena_bytes, ram, parts, note)]
    weights, code = m.const_bytes or 0, m.model_code_bytes or 0
    return [
        _fit("RAM", m.ram_bytes, ram, [
            ("arena", m.arena_bytes),
            ("stack, variables, frame buffer", m.ram_bytes - m.arena_bytes),
        ]),
        _fit("Flash", m.flash_bytes, flash, [
            ("weights and tables", weights),
            ("code of the model", code),
            ("firmware", m.flash_bytes - weights - code),
        ]),
    ]  # fmt: skip


def _fit(
    name: str, used: int, size: int | None, parts: Sequence[tuple[str, int]], note: str = ""
) -> Fit:
    whole = max(size or used, used, 1)
    pieces = tuple(Part(label, n, 100 * n / whole) for label, n in parts if n > 0)
    return Fit(name, used, size, pieces, note)


def _costs(document: Document) -> list[dict[str, Any]]:
    """Return one row per counted segment: its share of all, and its rate in MACs per unit."""
    run = document.profile_run
    if run is None:
        return []
    most = max((n.count for n in run.nodes), default=1) or 1
    return [
        {
            "nodes": _range(segment.nodes),
            "ops": node.op.split("+"),
            "name": node.name,
            "macs": node.macs,
            "count": node.count,
            "width": 100 * node.count / most,
            "share": 100 * node.count / run.total if run.total else 0.0,
            "rate": node.macs / node.count if node.macs and node.count else None,
        }
        for segment, node in zip(document.plan.segments, run.nodes, strict=True)
    ]


def _segments(graph: Graph, plan: MemoryPlan) -> list[dict[str, Any]]:
    rows = []
    for view in segment_views(graph, plan):
        nodes = view.segment.nodes
        rows.append(
            {
                "nodes": _range(nodes),
                "kind": view.segment.kind,
                "ops": [graph.nodes[p].op for p in nodes],
                "steps": max(1, len(view.segment.calls)),
                "alive": view.alive_bytes,
                "width": 100 * view.alive_bytes / max(plan.arena_bytes, 1),
                "rings": sorted(view.of_kind("ring"), key=lambda p: -p.bytes),
                "scratch": view.scratch_bytes,
            }
        )
    return rows


def _range(nodes: Sequence[int]) -> str:
    return f"{nodes[0]} to {nodes[-1]}" if len(nodes) > 1 else str(nodes[0])
