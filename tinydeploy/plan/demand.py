"""Turn a segment's schedule into the bytes in use at each of its calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import PLAIN, Call, op_named
from tinydeploy.plan.layout import Rows, aligned
from tinydeploy.plan.liveness import homes
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import Life, Scheduler, Stream

Amounts = NDArray[np.float64]
_Change: TypeAlias = tuple[Rows, int]  # calls, and by how many bytes what is in use grows at each


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """Hold the bytes in use at each call of a segment, without those of its nodes by themselves.

    `constant` bytes are in use throughout, `alive` ones beside them at each call; `roomy` and
    `inside` are the same when what it reads is there until its end, and what it leaves from its
    beginning.
    """

    constant: int
    alive: Amounts
    roomy: int
    inside: Amounts

    def most(self, own: int, scratch: Rows) -> tuple[int, int]:
        """Return the most bytes in use at a call, and the most of the roomy ones.

        `own` bytes of the nodes are in use throughout, `scratch` bytes at each call.
        """
        alive, inside = int((self.alive + scratch).max()), int((self.inside + scratch).max())
        return self.constant + own + alive, self.roomy + own + inside


class Demand:
    """Count the bytes that the segments of a network need.

    Inputs of the network among `feeds` arrive row by row where their readers are streamed; with
    `rereads` again in each segment that reads them.
    """

    def __init__(
        self,
        graph: Graph,
        selection: Selection,
        scheduler: Scheduler,
        feeds: frozenset[int],
        rereads: bool,
    ) -> None:
        self.graph, self.selection, self.scheduler = graph, selection, scheduler
        self.feeds, self.rereads = feeds, rereads
        self.birth, self.death = _lifetimes(graph, selection)
        for t in feeds:
            self.birth[t] = min(scheduler.readers.get(t, [-1]))
        self.size = {
            t: aligned(selection.layout(t).bytes(graph.tensors[t]))
            for t in range(len(graph.tensors))
        }
        self.size.update(dict.fromkeys(selection.outside, 0))

    def of(self, s: Stream) -> Usage:
        """Return the bytes in use while a segment runs."""
        constant = roomy = 0
        shared: list[_Change] = []
        own: list[_Change] = []
        for t in self.alive(s.nodes[0], s.nodes[-1]):
            life = s.lives.get(t)
            made = life is not None and life.written is not None
            if life is None or (made and t in self.scheduler.parts and t not in s.inner):
                constant += self.held(t)
                roomy += self.held(t)
            elif made:
                (own if t in s.inner else shared).extend(self._rows(s, t))
                roomy += 0 if t in s.inner else self.held(t)
            else:
                size = self.scheduler.row_bytes(t)
                constant += size * len(life.read)
                roomy += size * len(life.read)
                if self.death[t] <= s.nodes[-1]:
                    shared.append((_gone(life), -size))
        for p in s.nodes:
            shared += self._written_over(s, p)
        end = len(s.calls)
        inside = _added(own, end)
        alive = inside + _added(shared, end)
        return Usage(constant, np.cumsum(alive), roomy, np.cumsum(inside))

    def swept(self, s: Stream) -> Iterator[tuple[int, list[int], Usage]]:
        """Return the segments that end with a segment's last node, one node longer each time.

        Their schedules are those calls of the longest that are their own, so that what is in use
        adds up node by node. With each come where it begins among the nodes, and what it is fed.
        """
        end = len(s.calls)
        alive, inside = np.zeros(end), np.zeros(end)
        for start in range(len(s.nodes) - 1, -1, -1):
            p, part = s.nodes[start], s.nodes[start:]
            fed = self.fed(part)
            arrived = [f for f in s.feeds if f in fed and p in self.first_readers(f, part)]
            shared = self._written_over(s, p)
            own: list[_Change] = []
            for t in (self.graph.nodes[p].outputs[0], *arrived):
                (own if t in s.inner else shared).extend(self._rows(s, t))
            more = _added(own, end)
            inside += more
            alive += more + _added(shared, end)
            constant = roomy = 0
            outside: list[_Change] = []
            made = {self.graph.nodes[q].outputs[0] for q in part} | {*fed}
            for t in self.alive(p, part[-1]):
                life = s.lives.get(t)
                if t in made and life is not None and t not in self.scheduler.parts:
                    roomy += 0 if t in s.inner else self.size[t]
                elif life is None or t in made or self.death[t] > part[-1]:
                    constant += self.held(t)
                    roomy += self.held(t)
                else:
                    size = self.scheduler.row_bytes(t)
                    constant += size * len(life.read)
                    roomy += size * len(life.read)
                    outside.append((1 + np.maximum(life.read, 0), -size))
            most = np.cumsum(alive + _added(outside, end))
            yield start, fed, Usage(constant, most, roomy, np.cumsum(inside))

    def alive(self, first: int, last: int) -> Iterator[int]:
        """Return the tensors in the arena that are needed while some nodes run."""
        outside, death = self.selection.outside, self.death
        return (
            t
            for t, birth in self.birth.items()
            if birth <= last and death[t] >= first and t not in outside
        )

    def held(self, tensor: int) -> int:
        """Return the bytes of a tensor; of an input that arrives several times one row."""
        if self.is_shared(tensor):
            return aligned(self.graph.tensors[tensor].row_bytes)
        return self.size[tensor]

    def fed(self, nodes: Sequence[int]) -> list[int]:
        """Return the inputs that arrive row by row while these nodes run."""
        inside, readers = set(nodes), self.scheduler.readers
        return [
            t
            for t in self.graph.inputs
            if t in self.feeds
            and t in readers
            and (
                inside.issuperset(readers[t])
                or (self.is_shared(t) and inside.intersection(readers[t]))
            )
        ]

    def first_readers(self, feed: int, nodes: Sequence[int]) -> list[int]:
        """Return the first of some nodes that reads an input."""
        return [p for p in nodes if p in self.scheduler.readers[feed]][:1]

    def is_shared(self, tensor: int) -> bool:
        """Tell whether an input is delivered again to each segment that reads it."""
        users = self.scheduler.readers.get(tensor, [])
        rereads = self.rereads and tensor in self.feeds and len(users) > 1
        return rereads and all(self.scheduler.selection.kernels[p] is not None for p in users)

    def in_place(self, position: int) -> int:
        """Return what is saved when a whole node's output takes over its input's buffer."""
        graph, node = self.graph, self.graph.nodes[position]
        op, call = op_named(node.op), Call(graph, node)
        out = node.outputs[0]
        for k in op.inputs(call):
            i = node.inputs[k]
            if i is None or i not in self.birth or self.death[i] > position or not self.size[i]:
                continue
            plain = self.selection.layout(i) == self.selection.layout(out) == PLAIN
            if plain and op.in_place(call, k) and graph.tensors[i].bytes == call.output.bytes:
                return self.size[out]
        return 0

    def _rows(self, s: Stream, tensor: int) -> list[_Change]:
        """Return how the rows of a tensor made in a segment change what is in use at its calls."""
        if tensor in self.scheduler.parts:
            return []
        life, size = s.lives[tensor], self.scheduler.row_bytes(tensor)
        assert life.written is not None
        if tensor not in s.inner:
            return [(life.written, size)]
        return [(life.written, aligned(size)), (_gone(life), -aligned(size))]

    def _ends(self, tensor: int, node: int) -> bool:
        """Tell whether a tensor that is no part of another is not needed after a node."""
        return tensor in self.death and self.death[tensor] <= node

    def _written_over(self, s: Stream, node: int) -> list[_Change]:
        """Return what is saved by rows that a node writes over those they are made from."""
        found: list[_Change] = []
        for out, read in self.scheduler.pairs[node]:
            born = s.lives[out].written
            if born is None or out in self.scheduler.parts or not self._ends(read, s.nodes[-1]):
                continue
            met = born[born + 1 == _gone(s.lives[read])]
            size = self.scheduler.row_bytes(read)
            found += [(met, -size), (met + 1, size)]
        return found


def _added(changes: Sequence[_Change], calls: int) -> Amounts:
    """Return by how much the bytes in use grow at each call."""
    if not changes:
        return np.zeros(calls)
    sizes = np.repeat([size for _, size in changes], [len(at) for at, _ in changes])
    at = np.concatenate([at for at, _ in changes])
    return np.bincount(at, sizes, calls + 1)[:calls].astype(np.float64)


def _gone(life: Life) -> Rows:
    """Return the call before which each row is no longer needed."""
    return 1 + (life.read if life.written is None else np.maximum(life.read, life.written))


def _lifetimes(graph: Graph, selection: Selection) -> tuple[dict[int, int], dict[int, int]]:
    """Return first and last step of each tensor that is no part of another."""
    home = homes(graph, selection.kernels)

    def whole(tensor: int) -> int:
        return home.get(tensor, (tensor, 0))[0]

    birth = dict.fromkeys(map(whole, graph.inputs), -1)
    death = dict(birth)
    for p, node in enumerate(graph.nodes):
        for o in node.outputs:
            birth.setdefault(whole(o), p)
        for i in (*node.inputs, *node.outputs):
            if i is not None and whole(i) in birth:
                death[whole(i)] = p
    death.update((whole(o), len(graph.nodes)) for o in graph.outputs)
    return birth, death
