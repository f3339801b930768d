"""Turn a Graph into the segments that it could be executed in: their bytes and instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan import cost
from tinydeploy.plan.items import Cut
from tinydeploy.plan.layout import Rows, aligned
from tinydeploy.plan.liveness import executed, homes
from tinydeploy.plan.rows import paced
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import EVEN, Life, Scheduler, Stream, reduces

_LONGEST = 255  # columns of a segment's schedule, which names them in bytes


@dataclass(frozen=True, slots=True)
class Option:
    """Hold one way to execute order[start:end] as a segment: bytes and estimated instructions.

    `roomy` are the bytes when what it reads and what it leaves share none. A `loose` one has
    tighter nodes in another option.
    """

    start: int
    nodes: tuple[int, ...]
    bytes: int
    roomy: int
    instructions: float
    streamed: bool = False
    feeds: tuple[int, ...] = ()
    paces: tuple[Pace, ...] = ()
    loose: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """Hold a node's kernel, its bytes of scratch memory, of padding and sums, its instructions."""

    kernel: Kernel | None
    scratch: int
    own: int
    instructions: float


Amounts = NDArray[np.float64]


class Problem:
    """Hold what the dynamic program asks about segments: all `options`, by the cut they end at.

    Inputs of the network among `feeds` arrive row by row where their readers are streamed; with
    `rereads` again in each segment that reads them.
    """

    def __init__(
        self,
        graph: Graph,
        profile: IntegerProfile,
        selection: Selection,
        feeds: frozenset[int],
        rereads: bool = False,
    ) -> None:
        self.graph, self.profile, self.selection, self.feeds = graph, profile, selection, feeds
        self.order = executed(graph, selection)
        self.whole = {p: self._use(selection, p) for p in self.order}
        self.scheduler, self.rereads = Scheduler(graph, paced(graph, profile, selection)), rereads
        self.rows = self.scheduler.selection
        self.uses: dict[tuple[int, Pace], Use] = {}
        for pace, rows in self.scheduler.rows.items():
            chosen = replace(rows, streamed=frozenset(self.order))
            for p in self.order:
                if chosen.kernels[p]:
                    self.uses[p, pace] = self._use(chosen, p)
        self.birth, self.death = _lifetimes(graph, selection)
        for t in feeds:
            self.birth[t] = min(self.scheduler.readers.get(t, [-1]))
        self.size = {
            t: aligned(selection.layout(t).bytes(graph.tensors[t]))
            for t in range(len(graph.tensors))
        }
        self.size.update(dict.fromkeys(selection.outside, 0))

        self.peaks: dict[int, int] = {}
        self.streams: dict[tuple[tuple[int, ...], tuple[int, ...], tuple[Pace, ...]], Stream] = {}
        self.floor = sum(self.size[t] for t in set(graph.inputs) - feeds)
        self.options = [list(self._ending_at(end)) for end in range(len(self.order) + 1)]

    def cut(self, option: Option) -> Cut:
        """Return a segment with its schedule."""
        if not option.streamed:
            return option.nodes, None
        key = option.nodes, option.feeds, option.paces
        if key not in self.streams:
            self.streams[key] = self.scheduler.stream(*key)
        return option.nodes, self.streams[key]

    def _ending_at(self, end: int) -> Iterator[Option]:
        """Return all segments that end before order[end], those that begin latest first."""
        order, floor = self.order, self.floor
        if not end:
            return
        last = order[end - 1]
        if not self._shared_feed(last):
            size = self._whole(last)
            yield Option(end - 1, (last,), size, size, self.whole[last].instructions)
        begin = end
        for start in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
            first = order[start]
            if self.rows.kernels[first] is None or last - first != end - 1 - start:
                break  # not by rows, or a view lies between
            if start < end - 1 and reduces(self.rows, first):
                break  # what a reduction writes is there only at the end
            if end - start + len(self._fed(order[start:end])) > _LONGEST:
                break
            shared = [
                i for i in self.graph.nodes[first].inputs if i is not None and self._is_shared(i)
            ]
            if any(self._first_readers(i, order[start + 1 : end]) for i in shared):
                break  # what is delivered again is so to each strip by itself
            begin = start
        worth = [self._whole(p) > floor for p in order[begin:end]]
        if begin == end or not (any(worth) or self._fed(order[begin:end])):
            return  # the inputs take more than these nodes ever will
        tight: list[Pace] = ["tight"] * any(self._has(p, "tight") for p in order[begin:end])
        for pace in (*EVEN, *tight):
            for o in self._swept(begin, end, pace):
                other = any(self._has(p, "tight") for p in o.nodes)
                if pace == "tight" and not other:
                    continue
                if not o.feeds and not any(worth[o.start - begin :]):
                    continue
                if len(o.nodes) > 1 or o.bytes < self._whole(last) or o.feeds:
                    yield replace(o, loose=pace == "even" and other)

    def _swept(self, begin: int, end: int, pace: Pace) -> Iterator[Option]:
        """Return the streamed segments order[start:end], one after the other from the last start.

        Their schedules are those calls of the longest that are their own, so that what is in use
        adds up node by node.
        """
        nodes = self.order[begin:end]
        each = self._each(nodes, [pace] * len(nodes))
        feeds = self._fed(nodes)
        s = self.scheduler.stream(nodes, feeds, each)
        count = len(s.calls)
        alive, inside, scratch = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count)
        calls, own, instructions = 0, 0, 0.0
        for start in range(end - 1, begin - 1, -1):
            p, pace_here = self.order[start], each[start - begin]
            added = [(p, start - begin + len(feeds))]
            part = self.order[start:end]
            fed = self._fed(part)
            added += [
                (-1, k)
                for k, f in enumerate(feeds)
                if f in fed and p in self._first_readers(f, part)
            ]
            for node, column in added:
                t = feeds[column] if node < 0 else self.graph.nodes[node].outputs[0]
                self._count(s, t, alive, inside)
                calls += int(np.count_nonzero(s.calls == column))
            for out, read in self.scheduler.pairs[p]:
                if self._ends(read, part[-1]) and out not in self.scheduler.parts:
                    self._count_in_place(s, out, read, alive)
            use = self.uses[p, pace_here]
            own, instructions = own + use.own, instructions + use.instructions
            scratch[s.calls == len(feeds) + start - begin] = use.scratch
            constant = roomy = own
            outside = np.zeros(count + 1)
            made = {self.graph.nodes[q].outputs[0] for q in part} | {*fed}
            for t in self._alive(part[0], part[-1]):
                life = s.lives.get(t)
                if t in made and life is not None and t not in self.scheduler.parts:
                    roomy += 0 if t in s.inner else self.size[t]
                elif life is None or t in made or self.death[t] > part[-1]:
                    constant += self._held(t)
                    roomy += self._held(t)
                else:
                    size = self.scheduler.row_bytes(t)
                    constant += size * len(life.read)
                    roomy += size * len(life.read)
                    outside -= np.bincount(1 + np.maximum(life.read, 0), minlength=count + 1) * size
            most = (np.cumsum(alive + outside)[:-1] + scratch).max()
            within = (np.cumsum(inside)[:-1] + scratch).max()
            yield Option(
                start, tuple(part), constant + int(most), roomy + int(within),
                instructions + calls * cost.CALL, True, tuple(fed), _plain(each[start - begin :]),
            )  # fmt: skip

    def _has(self, position: int, pace: Pace) -> bool:
        """Tell whether a node can be streamed at a pace, and otherwise than evenly."""
        use = self.uses.get((position, pace))
        return use is not None and use != self.uses.get((position, "even"))

    def _option(
        self, start: int, nodes: Sequence[int], feeds: Sequence[int], paces: Sequence[Pace]
    ) -> Option:
        each = _plain(self._each(nodes, paces))
        s = self.scheduler.stream(nodes, feeds, each)
        self.streams[tuple(nodes), tuple(feeds), each] = s
        return Option(
            start, tuple(nodes), *self._streamed(s), self._instructions(s), True, tuple(feeds), each
        )

    def _each(self, nodes: Sequence[int], paces: Sequence[Pace]) -> list[Pace]:
        """Return the paces of nodes, "even" where they have no kernel for the one asked for."""
        return [
            pace if self._has(p, pace) else "even" for p, pace in zip(nodes, paces, strict=True)
        ]

    def refine(self, options: Sequence[Option]) -> bool:
        """Add options for given segments whose nodes are streamed at paces of their own.

        From all nodes "tight" on, those change first that save most instructions per byte. Returns
        whether there are any.
        """
        seen: set[tuple[int, ...]] = set()
        before = sum(map(len, self.options))
        for o in options:
            if o.streamed and o.nodes not in seen:
                seen.add(o.nodes)
                self.options[o.start + len(o.nodes)] += self._paced(o.start, o.nodes, o.feeds)
        return sum(map(len, self.options)) > before

    def _paced(self, start: int, nodes: Sequence[int], feeds: Sequence[int]) -> Iterator[Option]:
        """Return options of one segment, from least RAM to least instructions."""
        paces: list[Pace] = ["tight"] * len(nodes)
        least = self._option(start, nodes, feeds, paces)
        moves = []
        for k, p in enumerate(nodes):
            for pace in self.scheduler.rows:
                if not self._has(p, "tight" if pace == "even" else pace):
                    continue
                o = self._option(start, nodes, feeds, [*paces[:k], pace, *paces[k + 1 :]])
                saved, taken = least.instructions - o.instructions, o.bytes - least.bytes
                if saved > 0:
                    moves.append((saved / max(taken, 1), saved, k, pace))
        saves = [0.0] * len(nodes)
        for _, saved, k, pace in sorted(moves, key=lambda move: move[:3], reverse=True):
            if saved > saves[k]:
                saves[k], paces[k] = saved, pace
                yield replace(self._option(start, nodes, feeds, paces), loose=True)

    def _use(self, selection: Selection, position: int) -> Use:
        """Return what a node takes with the kernel that a selection has for it."""
        graph, profile = self.graph, self.profile
        own = aligned(selection.pad_row_bytes(graph, position))
        own += aligned(selection.accumulators(graph, position, profile))
        return Use(
            selection.kernels[position],
            aligned(selection.scratch(graph, position, profile)),
            own,
            cost.instructions(graph, profile, selection, position),
        )

    def _first_readers(self, feed: int, nodes: Sequence[int]) -> list[int]:
        """Return the first of some nodes that reads an input."""
        return [p for p in nodes if p in self.scheduler.readers[feed]][:1]

    def _fed(self, nodes: Sequence[int]) -> list[int]:
        """Return the inputs that arrive row by row while these nodes run."""
        inside, readers = set(nodes), self.scheduler.readers
        return [
            t
            for t in self.graph.inputs
            if t in self.feeds
            and t in readers
            and (
                inside.issuperset(readers[t])
                or (self._is_shared(t) and inside.intersection(readers[t]))
            )
        ]

    def _is_shared(self, tensor: int) -> bool:
        """Tell whether an input is delivered again to each segment that reads it."""
        users = self.scheduler.readers.get(tensor, [])
        rereads = self.rereads and tensor in self.feeds and len(users) > 1
        return rereads and all(self.rows.kernels[p] is not None for p in users)

    def _shared_feed(self, position: int) -> bool:
        """Tell whether a node reads such an input: it cannot be whole then."""
        return any(i is not None and self._is_shared(i) for i in self.graph.nodes[position].inputs)

    def _instructions(self, s: Stream) -> float:
        return len(s.calls) * cost.CALL + sum(u.instructions for u in self._uses(s))

    def uses_of(self, s: Stream, what: Callable[[Use], int]) -> list[int]:
        """Return a figure of each node of a segment."""
        return [what(u) for u in self._uses(s)]

    def _uses(self, s: Stream) -> list[Use]:
        return [self.uses[p, pace] for p, pace in zip(s.nodes, s.each, strict=True)]

    def _alive(self, first: int, last: int) -> Iterator[int]:
        """Return the tensors in the arena that are needed while some nodes run."""
        outside = self.selection.outside
        return (
            t
            for t in self.birth
            if self.birth[t] <= last and self.death[t] >= first and t not in outside
        )

    def _held(self, tensor: int) -> int:
        """Return the bytes of a tensor; of an input that arrives several times one row."""
        if self._is_shared(tensor):
            return aligned(self.graph.tensors[tensor].row_bytes)
        return self.size[tensor]

    def _whole(self, position: int) -> int:
        """Return the bytes alive while one node runs whole."""
        if position not in self.peaks:
            total = sum(self._held(t) for t in self._alive(position, position))
            use = self.whole[position]
            total += use.scratch + use.own - self._in_place(position)
            self.peaks[position] = total
        return self.peaks[position]

    def _count(self, s: Stream, tensor: int, alive: Amounts, inside: Amounts) -> None:
        """Add the rows of a tensor made in a segment to what is in use at its calls."""
        if tensor in self.scheduler.parts:
            return
        life, own = s.lives[tensor], tensor in s.inner
        assert life.written is not None
        size = self.scheduler.row_bytes(tensor)
        size = aligned(size) if own else size
        born = np.bincount(life.written, minlength=len(alive)) * size
        alive += born
        if own:
            change = born - np.bincount(_gone(life), minlength=len(alive)) * size
            alive += change - born
            inside += change

    def _ends(self, tensor: int, node: int) -> bool:
        """Tell whether a tensor that is no part of another is not needed after a node."""
        return tensor in self.death and self.death[tensor] <= node

    def _count_in_place(self, s: Stream, out: int, read: int, alive: Amounts) -> None:
        """Take away the rows that are written over those they are made from."""
        born = s.lives[out].written
        if born is not None:
            met = born[born + 1 == _gone(s.lives[read])]
            taken = np.bincount(met, minlength=len(alive)) * self.scheduler.row_bytes(read)
            alive -= taken
            alive[1:] += taken[:-1]

    def _streamed(self, s: Stream) -> tuple[int, int]:
        """Return the most bytes in use while a segment runs, at any of its calls; the same when
        what it reads is there until its end, and what it leaves from its beginning.
        """
        end, uses = len(s.calls), self._uses(s)
        constant = roomy = sum(u.own for u in uses)
        alive, inside = np.zeros(end + 1), np.zeros(end + 1)
        for t in self._alive(s.nodes[0], s.nodes[-1]):
            life = s.lives.get(t)
            made = life is not None and life.written is not None
            if life is None or (made and t in self.scheduler.parts and t not in s.inner):
                constant += self._held(t)
                roomy += self._held(t)
            elif made:
                self._count(s, t, alive, inside)
                roomy += 0 if t in s.inner else self._held(t)
            else:
                size = self.scheduler.row_bytes(t)
                constant += size * len(life.read)
                roomy += size * len(life.read)
                if self.death[t] <= s.nodes[-1]:
                    alive -= np.bincount(_gone(life), minlength=end + 1) * size
        for out, read in self.scheduler.in_place(s):
            if self._ends(read, s.nodes[-1]) and out not in self.scheduler.parts:
                self._count_in_place(s, out, read, alive)
        scratch = np.array([0] * len(s.feeds) + [u.scratch for u in uses])
        most = [int((np.cumsum(c)[:-1] + scratch[s.calls]).max()) for c in (alive, inside)]
        return constant + most[0], roomy + most[1]

    def _in_place(self, position: int) -> int:
        """Return what is saved when a single node's output takes over its input's buffer."""
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


def _plain(paces: Sequence[Pace]) -> tuple[Pace, ...]:
    """Return paces, none where all are even."""
    return () if all(pace == "even" for pace in paces) else tuple(paces)


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
