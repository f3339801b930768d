"""Execute a MemoryPlan on row numbers instead of values, to see that no row is lost or misread.

Every byte of the arena remembers which row of which tensor it holds. A call of a kernel must find
the rows it reads, may write its rows and its scratch memory anywhere but over those, and makes
whatever lay there unreadable. This knows nothing of lifetimes: it sees only where rows lie and in
which order they are made.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinydeploy.errors import TinydeployError
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, RowSource, op_named
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.liveness import homes

_ROWS = 1 << 20
_GARBAGE = -1

Span = tuple[int, int]


def simulate(graph: Graph, plan: MemoryPlan, profile: IntegerProfile) -> None:
    """Run a plan once; raises TinydeployError naming node and row where a byte is not there."""
    _Run(graph, plan, profile).all()


class _Run:
    def __init__(self, graph: Graph, plan: MemoryPlan, profile: IntegerProfile) -> None:
        self.graph, self.plan, self.profile = graph, plan, profile
        self.bytes = np.full(
            plan.arena_bytes + sum(b.bytes for b in plan.outside), _GARBAGE, np.int64
        )
        self.home = homes(graph, plan.selection.kernels)
        self.places: dict[int, tuple[int, ...]] = {}

    def all(self) -> None:
        if not self.plan.streamed_input:
            for i in self.graph.inputs:
                self.write(i, range(self.graph.tensors[i].rows))
        fed = {i for s in self.plan.segments for i in s.feeds}
        loaded: set[int] = set()
        for segment in self.plan.segments:
            if self.plan.streamed_input:
                for i in self.graph.inputs:
                    first = min(
                        (p for p, n in enumerate(self.graph.nodes) if i in n.inputs), default=-1
                    )
                    if i not in fed | loaded and first <= segment.nodes[-1]:
                        loaded.add(i)
                        self.write(i, range(self.graph.tensors[i].rows))
            if segment.kind == "layer":
                self.node(segment.nodes[0])
            else:
                self.streamed(segment.nodes, segment.feeds, segment.calls)
        for o in self.graph.outputs:
            self.check(o, range(self.graph.tensors[o].rows), f"output {o}")

    def streamed(
        self, nodes: tuple[int, ...], feeds: tuple[int, ...], calls: tuple[int, ...]
    ) -> None:
        done = [0] * (len(feeds) + len(nodes))
        for k in calls:
            if k < len(feeds):
                self.write(feeds[k], [done[k]])
                done[k] += 1
                continue
            p = nodes[k - len(feeds)]
            kernel, pace = self.plan.selection.kernels[p], self.plan.selection.pace(p)
            assert kernel is not None
            band = kernel.band * (pace if isinstance(pace, int) else 1)
            self.call(p, done[k], band)
            done[k] += band

    def node(self, position: int) -> None:
        """Run one node whole, band by band where its kernel does so."""
        kernel = self.plan.selection.kernels[position]
        assert kernel is not None
        site = self.plan.selection.site(self.graph, position, self.profile)
        op = op_named(self.graph.nodes[position].op)
        if kernel.whole(site) or op.region(site.call) is None:
            self.call(position, None, 0)
            return
        for y in range(0, op.rows(site.call), kernel.band):
            self.call(position, y, kernel.band)

    def call(self, position: int, y: int | None, band: int) -> None:
        """Call a kernel for the rows from y on, or for everything."""
        graph, plan = self.graph, self.plan
        call = Call(graph, graph.nodes[position])
        op, kernel = op_named(call.node.op), plan.selection.kernels[position]
        assert kernel is not None
        out = call.node.outputs[0]
        rows = graph.tensors[out].rows
        written = range(rows) if y is None else range(y, min(y + band, rows))
        sources: tuple[RowSource, ...] | None = op.region(call) if y is not None else None
        if kernel.accumulators is not None:
            sources = (RowSource(),)
            written = range(1) if y == call.input().rows - 1 else range(0)
        taken: list[tuple[int, list[int]]] = []
        for source in sources or tuple(RowSource(k) for k in op.inputs(call)):
            index = call.node.inputs[source.input]
            if index is None or graph.tensors[index].constant:
                continue
            height = graph.tensors[index].rows
            if sources is None or y is None:
                needed: Iterable[int] = range(height)
            else:
                last = min(y + band, y + 1 if kernel.accumulators else op.rows(call))
                needed = {r for k in range(y, last) for r in source.rows(k) if 0 <= r < height}
            taken.append((index, sorted(needed)))
        where = f"node {position} {call.node.op} at row {y}"
        spans = []
        for index, needed_rows in taken:
            self.check(index, needed_rows, where)
            # Element by element, at or below what is read, never ahead of it.
            behind = op.in_place(call, call.node.inputs.index(index)) and all(
                self.span(out, r)[0] <= self.span(index, r)[0] for r in written
            )
            if not behind:
                spans += [self.span(index, r) for r in needed_rows]
        private = [
            (plan.offsets[places[position]], plan.offsets[places[position]] + size)
            for places, size in (
                (plan.scratch, plan.selection.scratch(graph, position, self.profile)),
                (plan.pad_rows, plan.selection.pad_row_bytes(graph, position)),
                (plan.accumulators, plan.selection.accumulators(graph, position, self.profile)),
            )
            if position in places and size
        ]
        made = [self.span(out, r) for r in written]
        for low, high in (*made, *private):
            if high > plan.arena_bytes:
                raise TinydeployError(f"{where} writes outside of the arena")
            if any(low < b and a < high for a, b in spans):
                raise TinydeployError(f"{where} overwrites what it reads")
        for low, high in private:
            if any(low < b and a < high for a, b in made):
                raise TinydeployError(f"{where} overwrites its own scratch memory")
            self.bytes[low:high] = _GARBAGE
        self.write(out, written)

    def span(self, tensor: int, row: int) -> Span:
        """Return the bytes of a row."""
        layout, t = self.plan.selection.layout(tensor), self.graph.tensors[tensor]
        if tensor in self.plan.items.rows:
            start = self.rows(tensor)[row]
            return start, start + layout.row_bytes(t)
        start = self.plan.offset_of(tensor) + row * layout.row_bytes(t)
        return start, start + (t.row_bytes if layout.pitch else layout.row_bytes(t))

    def rows(self, tensor: int) -> tuple[int, ...]:
        if tensor not in self.places:
            self.places[tensor] = self.plan.row_offsets(tensor)
        return self.places[tensor]

    def tag(self, tensor: int, row: int) -> int:
        return self.home.get(tensor, (tensor, 0))[0] * _ROWS + row

    def write(self, tensor: int, rows: Iterable[int]) -> None:
        for row in rows:
            low, high = self.span(tensor, row)
            self.bytes[low:high] = self.tag(tensor, row)

    def check(self, tensor: int, rows: Iterable[int], where: str) -> None:
        part = tensor in self.home or tensor in {w for w, _ in self.home.values()}
        for row in rows:
            low, high = self.span(tensor, row)
            found, tag = self.bytes[low:high], self.tag(tensor, row)
            same = found // _ROWS == tag // _ROWS if part else found == tag
            if high > len(self.bytes) or low < 0 or not np.all(same):
                raise TinydeployError(f"{where}: row {row} of tensor {tensor} is not there")
