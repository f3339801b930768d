"""Turn the segments of a plan into items: bytes that lie together, and when each piece is in use.

Time is counted in calls: a node that runs whole is one, a streamed segment as many as it has. What
a segment reads dies row by row and what it leaves is born row by row, so buffers of such tensors
have a piece per row; the rows that only a segment knows are items of their own, or a few rows of
them that lie together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.plan.layout import Buffer, Item, Items, Rows, aligned
from tinydeploy.plan.liveness import Needs
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import Scheduler, Stream

Cut = tuple[tuple[int, ...], Stream | None]
_LATE = 1 << 40


def simple_items(buffers: Sequence[Buffer]) -> tuple[Item, ...]:
    """Return buffers as items whose calls are the buffers' steps."""
    return tuple(
        Item(b.label, b.bytes, np.array([[0, b.bytes, b.first, b.last]], np.int64)) for b in buffers
    )


def items_of(
    graph: Graph,
    selection: Selection,
    scheduler: Scheduler | None,
    cuts: Sequence[Cut],
    needs: Needs,
    streamed_input: bool = False,
) -> Items:
    """Return the items of a plan whose segments are `cuts`, in order, every node in one of them."""
    return _Builder(graph, selection, scheduler, cuts, needs, streamed_input).items()


@dataclass(slots=True)
class _Rows:
    """Hold when the rows of a tensor are in use, and whose places they take over.

    `together` rows lie together; `home` has, per such group, the tensor in whose place it lies.
    """

    first: Rows
    last: Rows
    together: int = 1
    home: dict[int, int] = field(default_factory=dict)
    again: list[tuple[Rows, Rows]] = field(default_factory=list)


class _Builder:
    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        scheduler: Scheduler | None,
        cuts: Sequence[Cut],
        needs: Needs,
        streamed_input: bool,
    ) -> None:
        self.graph, self.selection, self.scheduler = graph, selection, scheduler
        self.cuts, self.needs, self.streamed_input = cuts, needs, streamed_input
        lengths = [len(s.calls) if s else 1 for _, s in cuts]
        self.ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        self.segment = {p: k for k, (nodes, _) in enumerate(cuts) for p in nodes}
        self.inner: dict[int, _Rows] = {}
        self.whole = {
            b.tensors[0]: self._rows(b.tensors[0]) for b in needs.buffers if len(b.tensors) == 1
        }

    def items(self) -> Items:
        for k, (_, s) in enumerate(self.cuts):
            if s is not None:
                self._add_inner(s, int(self.ends[k]))
        lives = {t: _lives(rows) for t, rows in self.inner.items()}
        if self.scheduler is not None:
            for _, s in self.cuts:
                for out, read in self.scheduler.in_place(s) if s is not None else ():
                    self._take_over(out, read)
        found = [Item(b.label, b.bytes, self._pieces(b)) for b in self.needs.buffers]
        groups: dict[tuple[int, int], int] = {}
        for t, rows in self.inner.items():
            size = self._pitch(t)
            for group in range(-(-len(rows.first) // rows.together)):
                if group not in rows.home:
                    groups[t, group] = len(found)
                    found.append(self._group(t, rows, group, size))
        end = int(self.ends[-1])
        alive = np.zeros(end + 3, np.int64)
        pieces = np.concatenate([i.pieces for i in found]) if found else np.zeros((0, 4), np.int64)
        for column, sign in ((2, 1), (3, -1)):
            at = np.clip(pieces[:, column], -1, end) + 1 + (column == 3)
            sizes = sign * (pieces[:, 1] - pieces[:, 0])
            alive += np.bincount(at, sizes, minlength=end + 3).astype(np.int64)
        where = {t: self._places(t, groups) for t in self.inner}
        calls = {
            nodes[0]: (int(self.ends[k]), int(self.ends[k + 1]))
            for k, (nodes, _) in enumerate(self.cuts)
        }
        held: dict[int, int] = {}
        for _, s in self.cuts:
            if s is not None:
                held.update({t: max(held.get(t, 0), s.held(t)) for t in s.inner})
        return Items(tuple(found), where, held, np.cumsum(alive)[1:-1], calls, lives)

    def _pitch(self, tensor: int) -> int:
        return self.selection.layout(tensor).row_bytes(self.graph.tensors[tensor])

    def _rows(self, tensor: int) -> _Rows:
        """Return when each row of a tensor that is no segment's own is in use."""
        graph, count = self.graph, self.graph.tensors[tensor].rows
        first, last = np.full(count, _LATE), np.full(count, -1)
        for k, (nodes, s) in enumerate(self.cuts):
            start = int(self.ends[k])
            if s is None:
                touched = any(
                    tensor in (*graph.nodes[p].inputs, *graph.nodes[p].outputs) for p in nodes
                )
                if touched:
                    first, last = np.minimum(first, start), np.maximum(last, start)
            elif tensor in s.lives:
                life = s.lives[tensor]
                if life.written is not None:
                    first = np.minimum(first, start + life.written)
                    last = np.maximum(last, start + life.written)
                last = np.maximum(last, np.where(life.read < 0, -1, start + life.read))
        if tensor in graph.inputs:
            users = [self.segment[p] for p, n in enumerate(graph.nodes) if tensor in n.inputs]
            begin = int(self.ends[min(users)]) if users and self.streamed_input else -1
            first, last = np.minimum(first, begin), np.maximum(last, begin)
        if tensor in graph.outputs:
            last = np.full(count, int(self.ends[-1]))
        return _Rows(first, np.maximum(first, last))

    def _add_inner(self, s: Stream, start: int) -> None:
        for t, together in s.inner.items():
            life = s.lives[t]
            assert life.written is not None
            first, last = start + life.written, start + np.maximum(life.read, life.written)
            if t in self.inner:  # an input that is read again
                self.inner[t].together = max(self.inner[t].together, together)
                self.inner[t].again.append((first, last))
            else:
                self.inner[t] = _Rows(first, last, together)

    def _take_over(self, out: int, read: int) -> None:
        """Let the rows of an output lie where those of an input did, if they die just then."""
        made, old = (self.inner.get(t) or self.whole.get(t) for t in (out, read))
        if made is None or old is None or made.again or old.again:
            return
        if out in self.inner and read in self.inner:
            if made.together != old.together:
                return
            self._join(made, old, read, later=True)
        elif out in self.inner and self._is_plain(read):
            self._join(made, old, read, later=True)
        elif read in self.inner and self._is_plain(out):
            self._join(old, made, out, later=False)

    def _is_plain(self, tensor: int) -> bool:
        return tensor in self.whole and self.selection.layout(tensor).plain

    def _join(self, rows: _Rows, place: _Rows, home: int, later: bool) -> None:
        """Put groups of rows where those of the tensor `home` lie whose lives meet theirs."""
        n = rows.together
        for group in range(-(-len(rows.first) // n)):
            span = slice(group * n, (group + 1) * n)
            to, old = home, place
            while group in old.home:
                to = old.home[group]
                old = self.inner.get(to) or self.whole[to]
            meet = (
                rows.first[span] == old.last[span] if later else rows.last[span] == old.first[span]
            )
            if group not in rows.home and np.all(meet):
                rows.home[group] = to
                old.first[span] = np.minimum(old.first[span], rows.first[span])
                old.last[span] = np.maximum(old.last[span], rows.last[span])

    def _pieces(self, buffer: Buffer) -> Rows:
        """Return the pieces of a buffer: its rows, those in use at the same time as one."""
        if not buffer.tensors:
            return np.array(self._private(buffer), np.int64).reshape(-1, 4)
        if len(buffer.tensors) == 1:
            only = buffer.tensors[0]
            return _merged(self.whole[only], self._pitch(only), buffer.bytes)
        tensors = self.graph.tensors
        start = dict(zip(buffer.tensors, buffer.starts or (0,) * len(buffer.tensors), strict=True))
        main = max(buffer.tensors, key=lambda t: (self.selection.layout(t).bytes(tensors[t]), -t))
        pitch, all_rows = self._pitch(main), self._rows(main)
        for t in buffer.tensors:
            rows = self._rows(t)
            if t == main or len(rows.first) == 0:
                continue
            alike = (self._pitch(t), len(rows.first)) == (pitch, len(all_rows.first))
            if alike and start[t] - start[main] < pitch and start[main] == 0:
                all_rows.first = np.minimum(all_rows.first, rows.first)
                all_rows.last = np.maximum(all_rows.last, rows.last)
            else:
                all_rows.first = np.minimum(all_rows.first, rows.first.min())
                all_rows.last = np.maximum(all_rows.last, rows.last.max())
        if start[main]:
            first, last = int(all_rows.first.min()), int(all_rows.last.max())
            return np.array([[0, buffer.bytes, first, last]], np.int64)
        return _merged(all_rows, pitch, buffer.bytes)

    def _private(self, buffer: Buffer) -> list[tuple[int, int, int, int]]:
        """Return when a node uses memory of its own: scratch memory while it is called only."""
        index = next(k for k, b in enumerate(self.needs.buffers) if b is buffer)
        nodes = [p for p, k in self.needs.scratch.items() if k == index]
        k = self.segment[buffer.first]
        s, start = self.cuts[k][1], int(self.ends[k])
        if s is None or not nodes:
            return [(0, buffer.bytes, start, int(self.ends[k + 1]) - 1)]
        columns = [len(s.feeds) + s.nodes.index(p) for p in nodes]
        calls = start + np.flatnonzero(np.isin(s.calls, columns))
        return [(0, buffer.bytes, int(c), int(c)) for c in calls]

    def _group(self, tensor: int, rows: _Rows, group: int, size: int) -> Item:
        n = rows.together
        span = range(group * n, min((group + 1) * n, len(rows.first)))
        pieces = [
            (k * size, (k + 1) * size, first[r], last[r])
            for first, last in ((rows.first, rows.last), *rows.again)
            for k, r in enumerate(span)
        ]
        label = f"row {span[0]} of {self.graph.tensors[tensor].name[:60]}"
        return Item(label, aligned(len(span) * size), np.array(pieces, np.int64))

    def _places(self, tensor: int, groups: Mapping[tuple[int, int], int]) -> list[tuple[int, int]]:
        rows, size = self.inner[tensor], self._pitch(tensor)
        found = []
        for r in range(len(rows.first)):
            group, home, n = r // rows.together, tensor, rows.together
            while home in self.inner and group in self.inner[home].home:
                home = self.inner[home].home[group]
            if home in self.inner:
                found.append((groups[home, group], r % n * size))
            else:
                index = self.needs.holding(home)
                found.append((index, self.needs.buffers[index].start_of(home) + r * size))
        return found


def _lives(rows: _Rows) -> Rows:
    """Return (row, first call, last call) for every time that a row is in use."""
    number = np.arange(len(rows.first))
    times = ((rows.first, rows.last), *rows.again)
    return np.concatenate([np.stack([number, *t], axis=1) for t in times])


def _merged(rows: _Rows, pitch: int, size: int) -> Rows:
    """Return pieces of a whole tensor, neighbouring rows of one life as one."""
    if not len(rows.first):
        return np.array([[0, size, 0, 0]], np.int64)
    change = (np.diff(rows.first) != 0) | (np.diff(rows.last) != 0)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    ends = np.append(starts[1:] * pitch, size)
    return np.stack([starts * pitch, ends, rows.first[starts], rows.last[starts]], axis=1)
