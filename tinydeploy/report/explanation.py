"""Turn an Explanation into lines for people and into its part of the JSON document."""

from __future__ import annotations

from tinydeploy.ir import Graph
from tinydeploy.plan.explain import Explanation, PeakPart, Variant
from tinydeploy.report import document as doc
from tinydeploy.report.svg import short_name

_LINES = 12
_WORDS = {"input": "input of the network", "output": "output of the network",
          "tensor": "whole tensor", "ring": "rows", "scratch": "scratch memory",
          "padding": "row of padding"}  # fmt: skip


def explanation_lines(graph: Graph, e: Explanation, most: int = _LINES) -> list[str]:
    """Return what makes the peak, a line per tensor, and what would change it, a line each."""
    nodes = e.view.segment.nodes
    if len(nodes) > 1:
        where = f"nodes {nodes[0]} to {nodes[-1]}, which run together row by row"
    else:
        how = ", row by row" if e.view.segment.kind == "streamed" else ""
        where = f"node {nodes[0]} {graph.nodes[nodes[0]].op}{how}"
    lines = [f"peak: {e.view.alive_bytes:,} bytes alive at {where}"]
    if e.arena_bytes > e.view.alive_bytes:
        lines[0] += f" (the arena of {e.arena_bytes:,} has gaps)"
    lines += [_part_line(graph, part) for part in e.parts]
    if e.next_bytes:
        lines.append(f"next largest segment: {e.next_bytes:,} bytes")
    inputs = sum(p.bytes for p in e.parts if p.place.kind == "input")
    if 4 * inputs > e.view.alive_bytes:
        lines.append(f"--input streamed would not need the {inputs:,} bytes of the input")
    if not e.variants:
        lines.append("no smaller kernel, larger stride or lower width is possible at the peak")
        return lines
    lines.append("if the network were another one, trained again:")
    better = [v for v in e.variants if v.arena_bytes < e.arena_bytes]
    lines += [f"  {variant_line(e.arena_bytes, v)}" for v in better[:most]]
    if len(better) > most:
        lines.append(f"  and {len(better) - most} more that lower it")
    if idle := len(e.variants) - len(better):
        lines.append(f"  {idle} other changes at these layers do not lower it")
    if e.untried:
        lines.append(f"  {e.untried} were not tried for lack of time")
    if any(not v.searched for v in better):
        lines.append("  at most: with the segments of this plan; a new search may find less")
    return lines


def _part_line(graph: Graph, part: PeakPart) -> str:
    p = part.place
    what = f"{part.rows} of {p.rows} rows" if p.kind == "ring" else _WORDS[p.kind]
    text = f"  {part.bytes:>9,}  {what}"
    if p.tensors:
        text += f": {short_name(p.name)} {list(graph.tensors[p.tensors[0]].shape)}"
    if p.kind == "ring" and part.rows < p.rows_held:
        text += f", up to {p.rows_held} at other times"
    elif part.bytes < p.bytes:
        text += f", {p.bytes:,} as a whole"
    if part.readers:
        spans = [f"node {r.node} {r.op} reads {r.reach} at a time" for r in part.readers]
        text += "; " + ", ".join(spans)
    if part.waits_for:
        text += f"; they wait for the windows of nodes {', '.join(map(str, part.waits_for))}"
    return text


def variant_line(arena: int, v: Variant) -> str:
    """Return one change with the arena before and after, in bytes and per cent."""
    change = v.change
    share = 100 * (v.arena_bytes - arena) / arena if arena else 0.0
    percent = f"{share:+.0f}" if abs(share) >= 1 else f"{share:+.1f}"
    bound = "" if v.searched else "at most "
    return (
        f"node {change.node} {v.op} {change.before} -> {change.after}: "
        f"arena {arena:,} -> {bound}{v.arena_bytes:,} ({percent} %)"
    )


def explanation_figures(graph: Graph, e: Explanation) -> doc.ExplainFigures:
    """Return the explanation as a part of the document."""
    return doc.ExplainFigures(
        nodes=list(e.view.segment.nodes),
        kind=e.view.segment.kind,
        alive_bytes=e.view.alive_bytes,
        next_alive_bytes=e.next_bytes,
        buffers=[
            doc.PeakBuffer(
                name=p.place.name,
                kind=p.place.kind,
                shape=list(graph.tensors[p.place.tensors[0]].shape) if p.place.tensors else [],
                bytes=p.bytes,
                whole_bytes=p.place.bytes,
                rows_held=p.rows if p.place.kind == "ring" else p.place.rows_held,
                rows=p.place.rows,
                readers=[r.node for r in p.readers],
                waits_for=list(p.waits_for),
            )
            for p in e.parts
        ],
        variants=[
            doc.VariantFigures(
                node=v.change.node,
                op=v.op,
                change=v.change.kind,
                before=v.change.before,
                after=v.change.after,
                arena_bytes=v.arena_bytes,
                searched=v.searched,
            )
            for v in e.variants
        ],
        untried=e.untried,
    )
