"""Turn a Graph into the best ways to cut it into segments: a front of peak RAM and instructions.

A dynamic program over the cuts between nodes. A segment is one whole node, or a run of nodes
streamed row by row (plan.stream); its size is what is alive while it runs. Peaks of segments
combine by their maximum, instructions by their sum, and of all ways to reach a cut those are kept
that no other beats in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan import cost
from tinydeploy.plan.layout import aligned
from tinydeploy.plan.liveness import executed, homes
from tinydeploy.plan.rows import PACES, paced
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import EVEN, Scheduler, Stream, reduces, stacked

_LONGEST = 32  # columns of a segment's schedule, which has a bit for each
_KEPT = 24  # ways kept per cut

Cut = tuple[tuple[int, ...], Stream | None]


@dataclass(frozen=True, slots=True)
class Way:
    """Hold a way to execute the nodes up to a cut: bytes at its peak, estimated instructions.

    `cost` is what ways are compared by beside the peak.
    """

    peak: int
    instructions: float
    cost: float
    before: Way | None = None
    cut: Cut | None = None

    def cuts(self) -> list[Cut]:
        """Return the segments, first one first."""
        found: list[Cut] = []
        way: Way | None = self
        while way is not None and way.cut is not None:
            found.append(way.cut)
            way = way.before
        return found[::-1]


def front(problem: Problem, lean: bool = False, only: Pace | None = None) -> list[Way]:
    """Return the ways that no other beats in peak and instructions, least RAM first.

    Where `lean`, instead of instructions the sum of all segments' bytes counts, rings sharing with
    no one: such segments fit better between each other. `only` leaves out segments that have other
    paces, "tight" where they can.
    """
    reached: list[list[Way]] = [[Way(0, 0.0, 0.0)]]
    for options in problem.options[1:]:
        ways = []
        for o in options:
            if (only == "tight" and o.loose) or (only == "even" and o.cut[1] and o.cut[1].paces):
                continue
            size, cost = (o.roomy, float(o.roomy)) if lean else (o.bytes, o.instructions)
            for w in reached[o.start]:
                count = w.instructions + o.instructions
                ways.append(Way(max(w.peak, size), count, w.cost + cost, w, o.cut))
        reached.append(_best(ways))
    return reached[-1]


def _best(ways: list[Way]) -> list[Way]:
    """Drop the ways that another one beats; peaks and costs equal, the earlier one stays."""
    kept: list[Way] = []
    for way in sorted(ways, key=lambda w: (w.peak, w.cost)):
        if not kept or way.cost < kept[-1].cost:
            kept.append(way)
    if len(kept) > _KEPT:
        last = len(kept) - 1
        kept = [kept[k * last // (_KEPT - 1)] for k in range(_KEPT)]
    return kept


@dataclass(frozen=True, slots=True)
class Option:
    """Hold one way to execute order[start:end] as a segment: bytes and estimated instructions.

    `bytes` are the least that the segment can do with by itself; `roomy` are those with rings that
    share with no one, which fits better between other segments. A `loose` one has tighter nodes in
    another option.
    """

    start: int
    cut: Cut
    bytes: int
    roomy: int
    instructions: float
    loose: bool = False

    @property
    def shares(self) -> bool:
        """Tell whether some tensors may share bytes because they are streamed."""
        return self.cut[1] is not None and bool(self.cut[1].pairs)


@dataclass(frozen=True, slots=True)
class Use:
    """Hold a node's kernel, its bytes of scratch memory, of padding and sums, its instructions."""

    kernel: Kernel | None
    scratch: int
    own: int
    instructions: float


def _extra(uses: Sequence[Use]) -> int:
    """Return the bytes that nodes of one segment take beside tensors; scratch memory is shared."""
    return max(u.scratch for u in uses) + sum(u.own for u in uses)


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
        self.scheduler = Scheduler(graph, paced(graph, profile, selection), rereads)
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
        self.floor = sum(self.size[t] for t in set(graph.inputs) - feeds)
        self.options = [list(self._ending_at(end)) for end in range(len(self.order) + 1)]

    def _ending_at(self, end: int) -> Iterator[Option]:
        order = self.order
        for start in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
            nodes = order[start:end]
            first = nodes[0]
            if start == end - 1 and not self._shared_feed(first):
                size = self._whole(first)
                yield Option(start, (nodes, None), size, size, self.whole[first].instructions)
            if self.rows.kernels[first] is None or nodes[-1] - first != len(nodes) - 1:
                break  # not by rows, or a view lies between
            if len(nodes) > 1 and reduces(self.rows, first):
                break  # what a reduction writes is there only at the end
            feeds = self._fed(nodes)
            if len(nodes) + len(feeds) > _LONGEST:
                break
            if not feeds and all(self._whole(p) <= self.floor for p in nodes):
                continue  # the inputs take more than these nodes ever will
            tight: list[Pace] = ["tight"] * any(self._has(p, "tight") for p in nodes)
            for pace in (*EVEN, *tight):
                o = self._option(start, nodes, feeds, [pace] * len(nodes))
                o = replace(o, loose=pace == "even" and bool(tight))
                if len(nodes) > 1 or o.shares or feeds:
                    yield o

    def _has(self, position: int, pace: Pace) -> bool:
        """Tell whether a node can be streamed at a pace, and otherwise than evenly."""
        use = self.uses.get((position, pace))
        return use is not None and use != self.uses.get((position, "even"))

    def _option(
        self, start: int, nodes: Sequence[int], feeds: Sequence[int], paces: Sequence[Pace]
    ) -> Option:
        each: list[Pace] = [
            pace if self._has(p, pace) else "even" for p, pace in zip(nodes, paces, strict=True)
        ]
        s = self.scheduler.stream(nodes, feeds, each)
        return Option(start, (tuple(nodes), s), *self._streamed(s), self._instructions(s))

    def refine(self, cuts: Sequence[Cut]) -> bool:
        """Add options for given segments whose nodes are streamed at paces of their own.

        From all nodes "tight" on, those change first that save most instructions per byte. Returns
        whether there are any.
        """
        seen: set[tuple[int, ...]] = set()
        before = sum(map(len, self.options))
        for nodes, s in cuts:
            if s is None or nodes in seen:
                continue
            seen.add(nodes)
            start = self.order.index(nodes[0])
            self.options[start + len(nodes)] += self._paced(start, nodes, s.feeds)
        return sum(map(len, self.options)) > before

    def _paced(self, start: int, nodes: Sequence[int], feeds: Sequence[int]) -> Iterator[Option]:
        """Return options of one segment, from least RAM to least instructions."""
        paces: list[Pace] = ["tight"] * len(nodes)
        least = self._option(start, nodes, feeds, paces)
        moves = []
        for k, p in enumerate(nodes):
            for pace in PACES:
                if not self._has(p, "tight" if pace == "even" else pace):
                    continue
                o = self._option(start, nodes, feeds, [*paces[:k], pace, *paces[k + 1 :]])
                saved, taken = least.instructions - o.instructions, o.bytes - least.bytes
                if saved > 0:
                    moves.append((saved / max(taken, 1), saved, k, pace))
        saves = [0.0] * len(nodes)
        for _, saved, k, pace in sorted(moves, reverse=True):
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
        rereads = self.scheduler.rereads and tensor in self.feeds and len(users) > 1
        return rereads and all(self.rows.kernels[p] is not None for p in users)

    def _shared_feed(self, position: int) -> bool:
        """Tell whether a node reads such an input: it cannot be whole then."""
        return any(i is not None and self._is_shared(i) for i in self.graph.nodes[position].inputs)

    def _instructions(self, s: Stream) -> float:
        columns = len(s.nodes) + len(s.feeds)
        return len(s.calls) * (cost.STEP + cost.COLUMN * columns) + sum(
            u.instructions for u in self._uses(s)
        )

    def _uses(self, s: Stream) -> list[Use]:
        each = s.paces or EVEN * len(s.nodes)
        return [self.uses[p, pace] for p, pace in zip(s.nodes, each, strict=True)]

    def _alive(self, first: int, last: int) -> Iterator[int]:
        return (t for t in self.birth if self.birth[t] <= last and self.death[t] >= first)

    def _held(self, tensor: int) -> int:
        """Return the bytes of a tensor; of an input that arrives several times one row."""
        if self._is_shared(tensor):
            return aligned(self.graph.tensors[tensor].row_bytes)
        return self.size[tensor]

    def _whole(self, position: int) -> int:
        """Return the bytes alive while one node runs whole."""
        if position not in self.peaks:
            total = sum(self._held(t) for t in self._alive(position, position))
            total += _extra([self.whole[position]]) - self._in_place(position)
            self.peaks[position] = total
        return self.peaks[position]

    def _streamed(self, s: Stream) -> tuple[int, int]:
        """Return the bytes alive while a segment runs, its rings and scratch included; the same
        with rings that share with no one.
        """
        sizes = {t: self._held(t) for t in self._alive(s.nodes[0], s.nodes[-1])}
        for t, held in s.rings.items():
            layout = replace(self.selection.layout(t), ring=held)
            sizes[t] = aligned(layout.bytes(self.graph.tensors[t]))
        scratch = _extra(self._uses(s))
        outer = {p: d for p, d in s.pairs.items() if not s.rings.keys() & {*p}}
        return sharing(sizes, s, s.pairs) + scratch, sharing(sizes, s, outer) + scratch

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


def sharing(sizes: Mapping[int, int], s: Stream, pairs: Mapping[tuple[int, int], int]) -> int:
    """Return the bytes of tensors that live at the same time, some sharing as a segment allows."""
    above = {x for _, x in pairs if x not in s.rings}
    outputs = {y for y, t in pairs if t in s.rings}
    if above:
        (x,) = above
        under = [(sizes[y], d) for (y, t), d in pairs.items() if t == x and y in sizes]
        rest = [y for y in sizes if (y, x) not in pairs and y != x]
        return stacked(sizes.get(x, 0), under) + sum(sizes[y] for y in rest)
    if outputs:
        y = max(outputs, key=lambda t: sizes.get(t, 0))
        over = [(sizes[t], d) for (b, t), d in pairs.items() if b == y and t in sizes]
        rest = [t for t in sizes if (y, t) not in pairs and t != y]
        return stacked(sizes.get(y, 0), (), over) + sum(sizes[t] for t in rest)
    return sum(sizes.values())


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
