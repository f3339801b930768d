"""Turn a Graph into the plan of least RAM: where to cut it into streamed segments.

A dynamic program over the cuts between nodes minimises the largest number of bytes alive; every
segment is a single node or a run of streamable ones (plan.stream). The layer-by-layer plan is
always a candidate, so the result is never larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, Op, Site, op_named
from tinydeploy.plan.arena import allocate_greedy
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.layout import MemoryPlan, Segment, aligned
from tinydeploy.plan.liveness import Needs, buffers_of, executed
from tinydeploy.plan.planner import placed, plan_layers
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import Stream, reduces, stream

_SOLVER_SECONDS = 3.0
_LONGEST = 32  # columns of a segment's schedule, which has a bit for each

Cut = tuple[tuple[int, ...], Stream | None]


def plan_streamed(
    graph: Graph, profile: IntegerProfile, selection: Selection, allocator: str = "auto"
) -> MemoryPlan:
    """Return the plan of least RAM at no recomputation.

    Peaks equal, fewer streamed nodes win: rings cost instructions.
    """
    whole = plan_layers(graph, allocator, selection, profile)
    cuts = _best_cuts(graph, profile, selection)
    if all(s is None for _, s in cuts):
        return whole
    plan = _materialise(graph, profile, selection, cuts, allocator)
    return plan if plan.arena_bytes < whole.arena_bytes else whole


def streamed_at(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    offsets: Sequence[int],
    bound: int,
    allocator: str,
) -> MemoryPlan:
    """Return the streamed plan whose buffers lie at given offsets, as an earlier run found.

    Raises ValueError when the offsets do not belong to this graph and selection.
    """
    cuts = _best_cuts(graph, profile, selection)
    streams = [s for _, s in cuts if s]
    final = streaming_selection(selection, by_rows(graph, profile, selection), streams)
    needs = buffers_of(graph, profile, final, _with_views(graph, [nodes for nodes, _ in cuts]))
    if len(offsets) != len(needs.buffers) or min(offsets, default=0) < 0:
        raise ValueError(f"{len(offsets)} offsets for {len(needs.buffers)} buffers")
    return placed(
        graph, final, needs, _segments(graph, final, cuts), offsets, bound, allocator,
        _pairs(needs, streams),
    )  # fmt: skip


def streaming_selection(
    selection: Selection, by_rows: Selection, streams: Sequence[Stream]
) -> Selection:
    """Return the selection with rings for inner tensors, and which nodes work by rows."""
    layouts = dict(selection.layouts)
    for s in streams:
        for tensor, rows in s.rings.items():
            layouts[tensor] = replace(layouts.get(tensor, PLAIN), ring=rows)
    streamed = frozenset(p for s in streams for p in s.nodes)
    kernels = tuple(
        by_rows.kernels[p] if p in streamed else k for p, k in enumerate(selection.kernels)
    )
    return replace(selection, kernels=kernels, layouts=layouts, streamed=streamed)


def by_rows(graph: Graph, profile: IntegerProfile, selection: Selection) -> Selection:
    """Return the kernels that nodes have when they are streamed, None where they cannot be.

    That is the selected kernel if it works by rows, else the operator's reduction, else the next
    of the family that works on the same layouts.
    """
    kernels = tuple(
        None if k is None else _row_kernel(graph, profile, selection, p)
        for p, k in enumerate(selection.kernels)
    )
    return replace(selection, kernels=kernels)


def _row_kernel(
    graph: Graph, profile: IntegerProfile, selection: Selection, position: int
) -> Kernel | None:
    node = graph.nodes[position]
    op = op_named(node.op)
    site = replace(selection, streamed=frozenset({position})).site(graph, position, profile)
    if op.region(site.call) is not None and op.rows(site.call) > 1:
        last = len(op.kernels) - 1  # portable C is no substitute for a family's kernel
        own = selection.kernels[position]
        others = [k for k in op.kernels[:last] if k is not own and k.accepts(site)]
        for kernel in (own, *others):
            assert kernel is not None
            if kernel.by_rows and not kernel.whole(site) and _same_layouts(site, op, kernel):
                return kernel
    return next((k for k in op.reductions if k.accepts(site)), None)


def _same_layouts(site: Site, op: Op, kernel: Kernel) -> bool:
    """Tell whether a kernel reads and writes the layouts that were granted."""
    for k in op.inputs(site.call):
        granted = replace(site.input_layout(k), ring=0)
        if granted != kernel.wants(site, k):
            return False
    return kernel.planar_output or not site.output_layout.planar


def _best_cuts(graph: Graph, profile: IntegerProfile, selection: Selection) -> list[Cut]:
    """Return the segments of least peak; among those, with fewest streamed nodes."""
    order = executed(graph)
    rows = by_rows(graph, profile, selection)
    able = [rows.kernels[p] is not None for p in order]
    alive = _Alive(graph, selection, rows, profile)
    best: list[tuple[int, int, list[Cut]]] = [(0, 0, [])]
    for end in range(1, len(order) + 1):
        options = []
        for start in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
            nodes = order[start:end]
            if end - start > 1 and not all(able[start:end]):
                break
            if nodes[-1] - nodes[0] != len(nodes) - 1:
                break  # a view lies between
            if len(nodes) > 1 and reduces(rows, nodes[0]):
                break  # what a reduction writes is there only at the end
            peak, streamed, _ = best[start]
            for s in _forms(graph, rows, nodes, able[start]):
                size = alive.bytes(nodes, s)
                cost = streamed + (0 if s is None else len(nodes))
                options.append((max(peak, size), cost, start, s))
        peak, cost, start, s = min(options, key=lambda o: (o[0], o[1], -o[2]))
        best.append((peak, cost, [*best[start][2], (order[start:end], s)]))
    return best[-1][2]


def _forms(
    graph: Graph, selection: Selection, nodes: Sequence[int], able: bool
) -> list[Stream | None]:
    """Return how a run of nodes can be executed: whole (one node), or streamed."""
    forms: list[Stream | None] = [None] if len(nodes) == 1 else []
    if able:
        s = stream(graph, selection, nodes)
        if len(nodes) > 1 or s.overlap:
            forms.append(s)
    return forms


class _Alive:
    """Count the bytes alive during a segment, by the lifetimes of whole tensors."""

    def __init__(
        self, graph: Graph, selection: Selection, rows: Selection, profile: IntegerProfile
    ) -> None:
        self.graph, self.selection, self.rows = graph, selection, rows
        order = executed(graph)
        streamed_rows = replace(rows, streamed=frozenset(order))
        # Bytes of scratch memory and of the row of padding, whole and row by row.
        self.extra = {
            (p, streamed): (
                aligned(chosen.scratch(graph, p, profile)),
                aligned(chosen.pad_row_bytes(graph, p))
                + aligned(chosen.accumulators(graph, p, profile)),
            )
            for streamed, chosen in ((False, selection), (True, streamed_rows))
            for p in order
        }
        self.birth = dict.fromkeys(graph.inputs, -1)
        self.death = dict.fromkeys(graph.inputs, -1)
        alias: dict[int, int] = {}
        for p, node in enumerate(graph.nodes):
            view = selection.kernels[p] is None
            for o in node.outputs:
                if view and node.inputs[0] in self.birth:
                    alias[o] = alias.get(node.inputs[0] or 0, node.inputs[0] or 0)
                else:
                    self.birth[o] = self.death[o] = p
            for i in node.inputs:
                if i is not None:
                    root = alias.get(i, i)
                    if root in self.death:
                        self.death[root] = max(self.death[root], p)
        for o in graph.outputs:
            self.death[alias.get(o, o)] = len(graph.nodes)

    def size(self, tensor: int, selection: Selection) -> int:
        return aligned(selection.layout(tensor).bytes(self.graph.tensors[tensor]))

    def bytes(self, nodes: Sequence[int], s: Stream | None) -> int:
        """Return the bytes alive while a segment runs, its rings and scratch included."""
        first, last = nodes[0], nodes[-1]
        selection = streaming_selection(self.selection, self.rows, [s]) if s else self.selection
        total = sum(
            self.size(t, selection)
            for t in self.birth
            if self.birth[t] <= last and self.death[t] >= first
        )
        if s is None:
            total -= self._in_place(first)
        elif s.overlap:
            x, y = self.size(s.overlap.input, selection), self.size(s.overlap.output, selection)
            total -= x + y - max(y, s.overlap.distance + x)
        extra = [self.extra[p, s is not None] for p in nodes]
        return total + max(own for own, _ in extra) + sum(row for _, row in extra)

    def _in_place(self, position: int) -> int:
        """Return what is saved when a single node's output takes over its input's buffer."""
        graph, node = self.graph, self.graph.nodes[position]
        op, call = op_named(node.op), Call(graph, node)
        out = node.outputs[0]
        for k in op.inputs(call):
            i = node.inputs[k]
            if i is None or i not in self.birth or self.death[i] > position:
                continue
            plain = self.selection.layout(i) == self.selection.layout(out) == PLAIN
            if plain and op.in_place(call, k) and graph.tensors[i].bytes == call.output.bytes:
                return self.size(out, self.selection)
        return 0


def _materialise(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    cuts: Sequence[Cut],
    allocator: str,
) -> MemoryPlan:
    """Return the plan of the chosen segments, its buffers placed."""
    streams = [s for _, s in cuts if s]
    final = streaming_selection(selection, by_rows(graph, profile, selection), streams)
    spans = [nodes for nodes, _ in cuts]
    needs = buffers_of(graph, profile, final, _with_views(graph, spans))
    pairs = _pairs(needs, streams)
    bound = _bound(needs, pairs)
    offsets, total = allocate_greedy(needs.buffers, pairs, bound)
    used = "greedy"
    if allocator == "exact" or (allocator == "auto" and total > bound and solver_installed()):
        offsets, _, bound = allocate_exact(
            needs.buffers, offsets, total, _SOLVER_SECONDS, pairs, bound
        )
        used = "exact"
    return placed(graph, final, needs, _segments(graph, final, cuts), offsets, bound, used, pairs)


def _segments(graph: Graph, selection: Selection, cuts: Sequence[Cut]) -> tuple[Segment, ...]:
    return tuple(
        Segment("layer", nodes) if s is None else Segment("streamed", nodes, _bits(s), s.feeds)
        for nodes, s in cuts
    )


def _bits(s: Stream) -> tuple[int, ...]:
    """Return a schedule as one number per step."""
    weights = 1 << np.arange(s.calls.shape[1], dtype=np.int64)
    return tuple((s.calls @ weights).tolist())


def _with_views(graph: Graph, spans: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Add a segment of its own for every view, so that each node is in one."""
    inside = {p for nodes in spans for p in nodes}
    views = [(p,) for p in range(len(graph.nodes)) if p not in inside]
    return sorted([*spans, *views])


def _pairs(needs: Needs, streams: Sequence[Stream]) -> dict[tuple[int, int], int]:
    """Return which buffers may overlap by how much, the lower one first."""
    pairs = {}
    for s in streams:
        if s.overlap:
            below, above = needs.holding(s.overlap.output), needs.holding(s.overlap.input)
            dies = needs.buffers[above].last == s.nodes[-1]
            born = needs.buffers[below].first == s.nodes[0]
            if below != above and dies and born:
                pairs[below, above] = s.overlap.distance
    return pairs


def _bound(needs: Needs, pairs: Mapping[tuple[int, int], int]) -> int:
    """Return the largest number of bytes alive at a step, pairs overlapping as far as they may."""
    largest = 0
    for step in {b.first for b in needs.buffers}:
        alive = {k for k, b in enumerate(needs.buffers) if b.first <= step <= b.last}
        total = sum(needs.buffers[k].bytes for k in alive)
        for (below, above), distance in pairs.items():
            if below in alive and above in alive:
                y, x = needs.buffers[below].bytes, needs.buffers[above].bytes
                total -= x + y - max(y, distance + x)
        largest = max(largest, total)
    return largest
