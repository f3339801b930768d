"""Turn a Graph into memory plans: the front of RAM and instructions, and the one to use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tinydeploy.errors import FitError
from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Pace
from tinydeploy.passes import prove
from tinydeploy.plan.arena import allocate_greedy
from tinydeploy.plan.cost import layer_instructions
from tinydeploy.plan.cuts import Cut, Problem, Way, front
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.layout import Buffer, MemoryPlan, Segment, aligned
from tinydeploy.plan.liveness import Needs, buffers_of
from tinydeploy.plan.planner import placed, plan_layers
from tinydeploy.plan.rows import paced, streaming_selection
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import EVEN, Scheduler, Stream, stacked
from tinydeploy.plan.strips import Strips, joined, promising, split, work_factor

# Deterministic seconds for the exact placement of plans of a front, and of the one to use.
_SOLVER_SECONDS, _FINAL_SECONDS = 0.1, 0.8
_SOLVED = 6  # plans of a front whose buffers are placed exactly where greed misses the bound


# Points of the fronts for which buffers are placed.
_MATERIALISED, _LEAN = 14, 2
_TRIES = 50  # orders of placement that are tried for each
# Streamed plans of so many times the least RAM are weighed against each other.
NEAR = 1.1
# The default plan may cost this many times the instructions of the fastest, by goal.
SLACK = {"speed": 1.0, "balanced": 1.04, "size": 1.04}

Schedule = Literal["auto", "layer", "streamed"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say what a plan is for.

    schedule: "layer" runs each node whole; "streamed" needs least RAM, up to a tenth more where
        that saves relatively more instructions; "auto" takes the least RAM within 4 % of the
        fastest plan's instructions (the fastest plan itself where kernels are chosen for speed), or
        with `ram` (bytes) the fastest plan that fits.
    streamed_input: the inputs arrive piece by piece while the network runs.
    flash_input: the inputs lie in memory that is only read, such as flash; whoever selects kernels
        says so (liveness.keep_outside).
    mac_factor: how many times the MACs may be computed to save RAM, in strips (plan.strips).
    """

    schedule: Schedule = "auto"
    ram: int | None = None
    streamed_input: bool = False
    mac_factor: float = 1.0
    flash_input: bool = False


AUTO = Wanted()


@dataclass(frozen=True, slots=True)
class Choice:
    """Hold a plan with what it is estimated to cost, in instructions of one inference.

    The plan is of `graph`: the network, or with `strips` the network split so.
    """

    plan: MemoryPlan
    instructions: float
    graph: Graph
    strips: Strips | None = None
    mac_factor: float = 1.0


def plan(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    wanted: Wanted = AUTO,
    allocator: str = "auto",
    reselect: Callable[[Graph], Selection] | None = None,
) -> tuple[Choice, tuple[Choice, ...]]:
    """Return the plan to use and the front it is from, least RAM first.

    `reselect` chooses kernels for a network that was split into strips; without it none is.
    Raises FitError when no plan fits the RAM that is wanted.
    """
    if wanted.schedule == "layer" and not wanted.streamed_input:
        whole = plan_layers(graph, allocator, selection, profile)
        _check_fits(whole, wanted)
        only = Choice(whole, layer_instructions(graph, profile, selection), graph)
        return only, (only,)
    feeds = frozenset(graph.inputs) if wanted.streamed_input else frozenset()
    problem = Problem(graph, profile, selection, feeds)
    choices = _choices(problem, allocator)
    if wanted.mac_factor > 1 and reselect is not None:
        for strips in promising(problem, wanted.mac_factor):
            choices += _in_strips(graph, profile, strips, feeds, allocator, reselect)
    choices = _front(choices)
    index = _choose(choices, wanted, SLACK[selection.core.optimize])
    chosen = choices[index]
    if not chosen.plan.optimal and allocator != "greedy" and chosen.strips is None:
        segments, streamed = chosen.plan.segments, wanted.streamed_input
        again = plan_segments(
            graph, profile, selection, segments, allocator, streamed, _FINAL_SECONDS
        )
        if again.arena_bytes < chosen.plan.arena_bytes:
            chosen = choices[index] = replace(chosen, plan=again)
    _check_fits(chosen.plan, wanted)
    return chosen, tuple(choices)


def least_ram(
    graph: Graph, profile: IntegerProfile, selection: Selection, streamed_input: bool = False
) -> MemoryPlan:
    """Return a plan of little RAM, found fast: for searches that plan many networks."""
    feeds = frozenset(graph.inputs) if streamed_input else frozenset()
    way = front(Problem(graph, profile, selection, feeds))[0]
    return _materialise(
        graph, profile, selection, way.cuts(), "greedy", streamed_input, tries=_TRIES
    )


def _in_strips(
    graph: Graph,
    profile: IntegerProfile,
    strips: Strips,
    feeds: frozenset[int],
    allocator: str,
    reselect: Callable[[Graph], Selection],
) -> list[Choice]:
    """Return plans of the network split into strips, whose outputs are the same."""
    pieces = split(graph, strips)
    prove(graph, pieces, profile, "split")
    selection = joined(pieces, reselect(pieces), strips)
    factor = work_factor(graph, strips)
    return [
        replace(c, strips=strips, mac_factor=factor)
        for c in _choices(Problem(pieces, profile, selection, feeds, rereads=True), allocator)
    ]


def _choices(problem: Problem, allocator: str) -> list[Choice]:
    """Return the front of a network, each plan's buffers placed."""
    graph, profile, selection = problem.graph, problem.profile, problem.selection
    # What is least by itself is not always what fits best, so ways of several kinds are placed.
    only: tuple[Pace, ...] = ("even", "tight")
    others = [w for pace in only for w in front(problem, only=pace)[:_LEAN]]
    others += [w for pace in only for w in front(problem, lean=True, only=pace)[:_LEAN]]
    ways = _some(front(problem), _MATERIALISED) + others
    if not problem.scheduler.rereads and problem.refine([c for way in ways for c in way.cuts()]):
        ways = _some(front(problem), _MATERIALISED) + others
    ways = list({tuple((n, s.paces if s else None) for n, s in w.cuts()): w for w in ways}.values())
    streamed = bool(problem.feeds)
    choices = [
        Choice(
            _materialise(graph, profile, selection, w.cuts(), "greedy", streamed, tries=_TRIES),
            w.instructions,
            graph,
        )
        for w in ways
    ]
    if allocator != "greedy":
        missed = [k for k, c in enumerate(choices) if not c.plan.optimal]
        missed.sort(key=lambda k: choices[k].plan.lower_bound_bytes)
        for k in missed[: _SOLVED if solver_installed() or allocator == "exact" else 0]:
            segments = choices[k].plan.segments
            again = plan_segments(graph, profile, selection, segments, allocator, streamed)
            choices[k] = replace(choices[k], plan=again)
    return choices


def _some(ways: list[Way], most: int) -> list[Way]:
    """Return at most so many ways, evenly from least RAM to least instructions."""
    last = len(ways) - 1
    return ways if last < most else [ways[k * last // (most - 1)] for k in range(most)]


def _front(choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices that no other beats in RAM and instructions, least RAM first."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.plan.arena_bytes, c.instructions)):
        if not kept or choice.instructions < kept[-1].instructions:
            kept.append(choice)
    return kept


def _choose(choices: Sequence[Choice], wanted: Wanted, slack: float) -> int:
    """Return which choice is wanted; they are sorted, least RAM first."""
    if wanted.schedule == "layer":
        return len(choices) - 1
    least = choices[0].plan.arena_bytes
    if wanted.schedule == "streamed":
        near = [k for k, c in enumerate(choices) if c.plan.arena_bytes <= NEAR * least]
        return min(near, key=lambda k: choices[k].plan.arena_bytes * choices[k].instructions)
    if wanted.ram is not None:
        fitting = [k for k, c in enumerate(choices) if c.plan.arena_bytes <= wanted.ram]
        return fitting[-1] if fitting else 0
    limit = slack * choices[-1].instructions
    return next(k for k, c in enumerate(choices) if c.instructions <= limit)


def _check_fits(plan: MemoryPlan, wanted: Wanted) -> None:
    if wanted.ram is None or plan.arena_bytes <= wanted.ram:
        return
    if wanted.schedule != "auto":
        hint = "leave out --schedule"
    elif wanted.streamed_input:
        hint = "a smaller model is needed: 'tinydeploy plan --explain' says where"
    else:
        hint = "with --input streamed or flash the input need not lie in RAM as a whole"
    raise FitError(
        f"no plan of this network fits {wanted.ram:,} bytes",
        f"the smallest one found needs {plan.arena_bytes:,} bytes of activations",
        hint,
    )


def plan_again(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    segments: Sequence[Segment],
    offsets: Sequence[int],
    bound: int,
    allocator: str,
    streamed_input: bool = False,
) -> MemoryPlan:
    """Return the plan of given segments whose buffers lie at given offsets, as found before.

    Raises ValueError when they do not belong to this graph and selection.
    """
    cuts = _cuts_of(graph, profile, selection, segments)
    streams = [s for _, s in cuts if s]
    final = streaming_selection(graph, profile, selection, streams)
    spans = _with_views(graph, [nodes for nodes, _ in cuts])
    needs = buffers_of(graph, profile, final, spans, streamed_input)
    if len(offsets) != len(needs.buffers) or min(offsets, default=0) < 0:
        raise ValueError(f"{len(offsets)} offsets for {len(needs.buffers)} buffers")
    return placed(
        graph, final, needs, _segments(cuts), offsets, bound, allocator,
        _pairs(graph, needs, streams), streamed_input,
    )  # fmt: skip


def plan_segments(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    segments: Sequence[Segment],
    allocator: str = "auto",
    streamed_input: bool = False,
    seconds: float = _SOLVER_SECONDS,
) -> MemoryPlan:
    """Return the plan of given segments, such as those found for a network much like this one.

    Raises ValueError when a streamed one holds nodes that do not work by rows.
    """
    cuts = _cuts_of(graph, profile, selection, segments)
    return _materialise(graph, profile, selection, cuts, allocator, streamed_input, seconds)


def _cuts_of(
    graph: Graph, profile: IntegerProfile, selection: Selection, segments: Sequence[Segment]
) -> list[Cut]:
    """Return given segments with their schedules; raises ValueError if they cannot be had."""
    known = {p for s in segments for p in s.nodes}
    if known - set(range(len(graph.nodes))):
        raise ValueError(f"segments of nodes {sorted(known)}")
    fed = [i for s in segments for i in s.feeds]
    rereads = len(fed) > len({*fed})
    scheduler = Scheduler(graph, paced(graph, profile, selection), rereads)
    cuts: list[Cut] = []
    for s in segments:
        streamed = s.kind == "streamed"
        each = s.paces or EVEN * len(s.nodes)
        if len(each) != len(s.nodes):
            raise ValueError(f"{len(each)} paces of {len(s.nodes)} nodes")
        if streamed and not scheduler.columns.keys() >= set(zip(s.nodes, each, strict=True)):
            raise ValueError(f"nodes {list(s.nodes)} do not work by rows")
        cuts.append((s.nodes, scheduler.stream(s.nodes, s.feeds, each) if streamed else None))
    return cuts


def _materialise(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    cuts: Sequence[Cut],
    allocator: str,
    streamed_input: bool,
    seconds: float = _SOLVER_SECONDS,
    tries: int = 4 * _TRIES,
) -> MemoryPlan:
    """Return the plan of the chosen segments, its buffers placed."""
    streams = [s for _, s in cuts if s]
    final = streaming_selection(graph, profile, selection, streams)
    spans = _with_views(graph, [nodes for nodes, _ in cuts])
    needs = buffers_of(graph, profile, final, spans, streamed_input)
    pairs = _pairs(graph, needs, streams)
    bound = _bound(needs, pairs)
    offsets, total = allocate_greedy(needs.buffers, pairs, bound, tries)
    used = "greedy"
    if allocator == "exact" or (allocator == "auto" and total > bound and solver_installed()):
        offsets, _, bound = allocate_exact(needs.buffers, offsets, total, seconds, pairs, bound)
        used = "exact"
    return placed(graph, final, needs, _segments(cuts), offsets, bound, used, pairs, streamed_input)


def _segments(cuts: Sequence[Cut]) -> tuple[Segment, ...]:
    return tuple(
        Segment("layer", nodes)
        if s is None
        else Segment("streamed", nodes, _bits(s), s.feeds, s.paces)
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


def _pairs(graph: Graph, needs: Needs, streams: Sequence[Stream]) -> dict[tuple[int, int], int]:
    """Return which buffers may overlap by how much, the lower one first."""
    pairs = {}
    for s in streams:
        touched = {i for p in s.nodes for i in _tensors(graph.nodes[p])}
        for (low, high), distance in s.pairs.items():
            below, above = needs.holding(low), needs.holding(high)
            # Both must be at work here alone; no other tensor of their buffers may be.
            dies = high in s.rings or needs.buffers[above].last == s.nodes[-1]
            born = low in s.rings or needs.buffers[below].first == s.nodes[0]
            alone = all(
                _fills(graph, needs.buffers[k], t)
                and len(touched & {*needs.buffers[k].tensors}) == 1
                for k, t in ((below, low), (above, high))
            )
            if below != above and dies and born and alone:
                pairs[below, above] = distance
    return pairs


def _fills(graph: Graph, buffer: Buffer, tensor: int) -> bool:
    """Tell whether a tensor begins where its buffer does, and no other part is larger."""
    if not buffer.starts:
        return True
    start = buffer.starts[buffer.tensors.index(tensor)]
    return start == 0 and aligned(graph.tensors[tensor].bytes) == buffer.bytes


def _tensors(node: Node) -> tuple[int | None, ...]:
    return (*node.inputs, *node.outputs)


def _bound(needs: Needs, pairs: Mapping[tuple[int, int], int]) -> int:
    """Return a number of bytes that no placement can do without.

    At each step that is what is alive, less what could at best be shared: with one buffer that
    several may share with, the best stack of them all.
    """
    largest = 0
    for step in {b.first for b in needs.buffers}:
        alive = {k for k, b in enumerate(needs.buffers) if b.first <= step <= b.last}
        sizes = {k: needs.buffers[k].bytes for k in alive}
        here = {(b, a): d for (b, a), d in pairs.items() if b in alive and a in alive}
        shared = sum(
            min(sizes[b] - max(d, 0), sizes[a]) if d < sizes[b] else 0 for (b, a), d in here.items()
        )
        total = max(sum(sizes.values()) - shared, *sizes.values(), 0)
        centres = {a for _, a in here}
        if len(centres) == 1 and not {b for b, _ in here} & centres:
            (x,) = centres
            under = [(sizes[b], d) for (b, _), d in here.items()]
            rest = [k for k in alive if (k, x) not in here and k != x]
            total = stacked(sizes[x], under) + sum(sizes[k] for k in rest)
        largest = max(largest, total)
    return largest
