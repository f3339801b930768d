"""Turn a Graph into the segments that it could be executed in: their bytes and instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Kernel
from tinydeploy.ops.base import Pace
from tinydeploy.plan import cost
from tinydeploy.plan.demand import Demand, Usage
from tinydeploy.plan.flash import node_constants
from tinydeploy.plan.items import Cut
from tinydeploy.plan.layout import aligned
from tinydeploy.plan.liveness import executed
from tinydeploy.plan.rows import STORED, paced
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import EVEN, Scheduler, Stream, reduces

_LONGEST = 255  # columns of a segment's schedule, which names them in bytes
_TRIED = 1_500  # nodes in all the options of a segment whose paces are tried


@dataclass(frozen=True, slots=True)
class Option:
    """Hold one way to execute order[start:end] as a segment: bytes and estimated instructions.

    `roomy` are the bytes when what it reads and what it leaves share none. A `loose` one has
    tighter nodes in another option. `stored` are the bytes that its weights take more in flash.
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
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """Hold a node's kernel, its bytes of scratch memory, of padding and sums, its instructions;
    and how many more bytes its weights take in flash than when it is streamed evenly.
    """

    kernel: Kernel | None
    scratch: int
    own: int
    instructions: float
    stored: int = 0


class Problem:
    """Hold what the dynamic program asks about segments: all `options`, by the cut they end at.

    Inputs of the network among `feeds` arrive row by row where their readers are streamed; with
    `rereads` again in each segment that reads them. Weights may be `stored` wider if that is said.
    """

    def __init__(
        self,
        graph: Graph,
        profile: IntegerProfile,
        selection: Selection,
        feeds: frozenset[int],
        rereads: bool = False,
        stored: bool = False,
    ) -> None:
        self.graph, self.profile, self.selection, self.feeds = graph, profile, selection, feeds
        self.order = executed(graph, selection)
        self.whole = {p: self._use(selection, p) for p in self.order}
        self.scheduler = Scheduler(graph, paced(graph, profile, selection, stored))
        self.rereads = rereads
        self.rows = self.scheduler.selection
        self.uses: dict[tuple[int, Pace], Use] = {}
        for pace, rows in self.scheduler.rows.items():
            chosen = replace(rows, streamed=frozenset(self.order))
            for p in self.order:
                if chosen.kernels[p]:
                    self.uses[p, pace] = self._use(chosen, p)
            if pace in STORED:
                self._count_stored(chosen, pace)
        self.demand = Demand(graph, selection, self.scheduler, feeds, rereads)
        self.peaks = {p: self._whole(p) for p in self.order}
        self.usages: dict[tuple[object, ...], tuple[Stream, Usage]] = {}
        self.floor = sum(self.demand.size[t] for t in set(graph.inputs) - feeds)
        self.options = [list(self._ending_at(end)) for end in range(len(self.order) + 1)]

    def cut(self, option: Option) -> Cut:
        """Return a segment with its schedule."""
        if not option.streamed:
            return option.nodes, None
        paces = option.paces or EVEN * len(option.nodes)
        stream, _ = self._usage(option.nodes, option.feeds, paces)
        return option.nodes, replace(stream, paces=option.paces)

    def _ending_at(self, end: int) -> Iterator[Option]:
        """Return all segments that end before order[end], those that begin latest first."""
        order, demand = self.order, self.demand
        if not end:
            return
        last = order[end - 1]
        if not self._shared_feed(last):
            size = self.peaks[last]
            yield Option(end - 1, (last,), size, size, self.whole[last].instructions)
        begin = end
        for start in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
            first = order[start]
            if self.rows.kernels[first] is None or last - first != end - 1 - start:
                break  # not by rows, or a view lies between
            if start < end - 1 and reduces(self.rows, first):
                break  # what a reduction writes is there only at the end
            if end - start + len(demand.fed(order[start:end])) > _LONGEST:
                break
            shared = [
                i for i in self.graph.nodes[first].inputs if i is not None and demand.is_shared(i)
            ]
            if any(demand.first_readers(i, order[start + 1 : end]) for i in shared):
                break  # what is delivered again is so to each strip by itself
            begin = start
        nodes = order[begin:end]
        worth = [self.peaks[p] > self.floor for p in nodes]
        if not nodes or not (any(worth) or demand.fed(nodes)):
            return  # the inputs take more than these nodes ever will
        even: list[Pace] = ["even"] * len(nodes)
        tight = self._each(nodes, ["tight"] * len(nodes))
        if self.scheduler.shape(nodes, even) == self.scheduler.shape(nodes, tight):
            found = self._swept(begin, nodes, [even, tight])
        else:
            found = (o for each in (even, tight) for o in self._swept(begin, nodes, [each]))
        seen = set()
        for o in found:
            if (o.start, o.paces) in seen:
                continue
            seen.add((o.start, o.paces))
            if not o.feeds and not any(worth[o.start - begin :]):
                continue
            if len(o.nodes) > 1 or o.bytes < self.peaks[last] or o.feeds:
                yield o

    def _swept(
        self, begin: int, nodes: Sequence[int], variants: Sequence[Sequence[Pace]]
    ) -> Iterator[Option]:
        """Return the streamed segments that end with the last of some nodes, at all variants of
        their paces, which come to the same schedule.
        """
        feeds = self.demand.fed(nodes)
        s = self.scheduler.stream(nodes, feeds, variants[0])
        count = np.bincount(s.calls, minlength=len(feeds) + len(nodes))
        scratch = [np.zeros(len(s.calls), np.int64) for _ in variants]
        own, instructions = [0] * len(variants), [0.0] * len(variants)
        tighter = False
        for start, fed, usage in self.demand.swept(s):
            column = len(feeds) + start
            calls = int(count[column:].sum()) + sum(int(count[feeds.index(f)]) for f in fed)
            tighter = tighter or self._has(nodes[start], "tight")
            for k, paces in enumerate(variants):
                use = self.uses[nodes[start], paces[start]]
                own[k], instructions[k] = own[k] + use.own, instructions[k] + use.instructions
                if use.scratch:
                    scratch[k][s.calls == column] = use.scratch
                plain = _plain(paces[start:])
                yield Option(
                    begin + start, tuple(nodes[start:]), *usage.most(own[k], scratch[k]),
                    instructions[k] + calls * cost.CALL, True, tuple(fed), plain,
                    tighter and not plain,
                )  # fmt: skip

    def _has(self, position: int, pace: Pace) -> bool:
        """Tell whether a node can be streamed at a pace, and otherwise than evenly."""
        use = self.uses.get((position, pace))
        return use is not None and use != self.uses.get((position, "even"))

    def _usage(
        self, nodes: Sequence[int], feeds: Sequence[int], paces: Sequence[Pace]
    ) -> tuple[Stream, Usage]:
        """Return a segment's schedule, the same for all paces that come to it, and its bytes."""
        key = tuple(nodes), tuple(feeds), self.scheduler.shape(nodes, paces)
        if key not in self.usages:
            stream = self.scheduler.stream(nodes, feeds, paces)
            self.usages[key] = stream, self.demand.of(stream)
        return self.usages[key]

    def option(
        self, start: int, nodes: Sequence[int], feeds: Sequence[int], paces: Sequence[Pace]
    ) -> Option:
        """Return the option of one segment whose nodes are streamed at given paces."""
        stream, usage = self._usage(nodes, feeds, paces)
        uses = [self.uses[p, pace] for p, pace in zip(nodes, paces, strict=True)]
        scratch = np.array([0] * len(feeds) + [u.scratch for u in uses])
        return Option(
            start, tuple(nodes), *usage.most(sum(u.own for u in uses), scratch[stream.calls]),
            len(stream.calls) * cost.CALL + sum(u.instructions for u in uses),
            True, tuple(feeds), _plain(paces), True, sum(u.stored for u in uses),
        )  # fmt: skip

    def _each(self, nodes: Sequence[int], paces: Sequence[Pace]) -> list[Pace]:
        """Return the paces of nodes, "even" where they have no kernel for the one asked for."""
        return [
            pace if self._has(p, pace) else "even" for p, pace in zip(nodes, paces, strict=True)
        ]

    def _count_stored(self, chosen: Selection, pace: Pace) -> None:
        """Say how much more flash weights take that are stored wider; forget the others."""
        even = replace(self.scheduler.rows["even"], streamed=chosen.streamed)
        for p in [p for p, other in self.uses if other == pace]:
            before, after = (node_constants(self.graph, self.profile, s, p) for s in (even, chosen))
            if after > before:
                self.uses[p, pace] = replace(self.uses[p, pace], stored=after - before)
            else:
                del self.uses[p, pace]

    def refine(self, options: Sequence[Option], price: float = 0.0) -> bool:
        """Add options for given segments whose nodes are streamed at paces of their own.

        Flash costs `price` instructions per byte. Returns whether there are any.
        """
        seen: set[tuple[int, ...]] = set()
        before = sum(map(len, self.options))
        for o in options:
            if o.streamed and o.nodes not in seen:
                seen.add(o.nodes)
                found = self._paced(o.start, o.nodes, o.feeds, price)
                self.options[o.start + len(o.nodes)] += found
        return sum(map(len, self.options)) > before

    def _paced(
        self, start: int, nodes: Sequence[int], feeds: Sequence[int], price: float
    ) -> list[Option]:
        """Return options of one segment that no other tried beats, from least RAM to least work.

        From all nodes "tight" on, those change first that save most instructions per byte; then
        one node is changed in the best ones found so far.
        """
        found: dict[tuple[Pace, ...], Option] = {}

        def tried(paces: Sequence[Pace]) -> Option:
            key = tuple(paces)
            if key not in found:
                found[key] = self.option(start, nodes, feeds, paces)
            return found[key]

        paces = self._each(nodes, ["tight"] * len(nodes))
        least = tried(paces)
        others: list[tuple[int, Pace]] = [
            (k, pace)
            for k, p in enumerate(nodes)
            for pace in self.scheduler.rows
            if self._has(p, "tight" if pace == "even" else pace)
        ]
        moves = []
        for k, pace in others:
            o = tried([*paces[:k], pace, *paces[k + 1 :]])
            saved, taken = _cost(least, price) - _cost(o, price), o.bytes - least.bytes
            if saved > 0:
                moves.append((saved / max(taken, 1), saved, k, pace))
        saves = [0.0] * len(nodes)
        for _, saved, k, pace in sorted(moves, key=lambda move: move[:3], reverse=True):
            if saved > saves[k]:
                saves[k], paces[k] = saved, pace
                tried(paces)
        changed: set[tuple[Pace, ...]] = set()
        while len(found) * len(nodes) < _TRIED:
            best = _unbeaten(found, price)
            unchanged = [key for key in best if key not in changed]
            if not unchanged:
                break
            changed.add(unchanged[0])
            for k, pace in others:
                tried([*unchanged[0][:k], pace, *unchanged[0][k + 1 :]])
        return list(_unbeaten(found, price).values())

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

    def _shared_feed(self, position: int) -> bool:
        """Tell whether a node reads an input that arrives several times: never whole then."""
        inputs = self.graph.nodes[position].inputs
        return any(i is not None and self.demand.is_shared(i) for i in inputs)

    def uses_of(self, s: Stream, what: Callable[[Use], int]) -> list[int]:
        """Return a figure of each node of a segment."""
        return [what(self.uses[p, pace]) for p, pace in zip(s.nodes, s.each, strict=True)]

    def _whole(self, position: int) -> int:
        """Return the bytes alive while one node runs whole."""
        demand, use = self.demand, self.whole[position]
        total = sum(demand.held(t) for t in demand.alive(position, position))
        return total + use.scratch + use.own - demand.in_place(position)


def _cost(option: Option, price: float) -> float:
    """Return the instructions of an option with those that its flash is worth."""
    return option.instructions + price * option.stored


def _unbeaten(
    found: dict[tuple[Pace, ...], Option], price: float
) -> dict[tuple[Pace, ...], Option]:
    """Return those options that no other beats in bytes and cost, least RAM first."""
    best: dict[tuple[Pace, ...], Option] = {}
    least = float("inf")
    for key, o in sorted(found.items(), key=lambda f: (f[1].bytes, _cost(f[1], price))):
        if _cost(o, price) < least:
            best[key], least = o, _cost(o, price)
    return best


def _plain(paces: Sequence[Pace]) -> tuple[Pace, ...]:
    """Return paces, none where all are even."""
    return () if all(pace == "even" for pace in paces) else tuple(paces)
