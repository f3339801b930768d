"""Turn a Graph into memory plans: the front of RAM and instructions, and the one to use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tinydeploy.errors import FitError
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import Pace
from tinydeploy.passes import prove
from tinydeploy.plan.cost import layer_instructions
from tinydeploy.plan.cuts import Way, front
from tinydeploy.plan.flash import node_constants
from tinydeploy.plan.items import Cut
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.planner import materialise, placed, placed_again, plan_layers, prepared
from tinydeploy.plan.problem import Problem
from tinydeploy.plan.rows import STORED, paced
from tinydeploy.plan.select import Selection
from tinydeploy.plan.stream import EVEN, Scheduler
from tinydeploy.plan.strips import Strips, joined, promising, split, work_factor

_SOLVER_SECONDS = 0.1  # deterministic ones
# Points of the front whose items are placed, plans of one pace beside them, and of those that could
# be the one to use.
_MATERIALISED, _LEAN, _NEAREST = 7, 2, 3
_STRIPPED = 2  # the same where the network is split into strips
# Steps to place items: of each plan, of a few that could be the one to use, and of that one.
_EFFORT, _MORE_EFFORT, _FINAL_EFFORT = 0, 3_000, 10_000
_MORE = 4
_HARDER = 4  # how many times the effort for strips, of which there are more items
# What 1 % of the flash is worth where weights may be stored wider, in % of the instructions; paces
# are tried at every third of these.
_PRICES, _REFINED = (0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.06, 0.04, 0.01), 3
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
    flash: bytes that the constants may take where weights are stored wider; None: as many as it
        takes. They are only for a budget of RAM that no other plan meets within 4 % of the fastest.
    """

    schedule: Schedule = "auto"
    ram: int | None = None
    streamed_input: bool = False
    mac_factor: float = 1.0
    flash_input: bool = False
    flash: int | None = None


AUTO = Wanted()


@dataclass(frozen=True, slots=True)
class Choice:
    """Hold a plan with what it is estimated to cost, in instructions of one inference.

    The plan is of `graph`: the network, or with `strips` the network split so. `stored` are the
    bytes that its weights take more in flash than they would.
    """

    plan: MemoryPlan
    instructions: float
    graph: Graph
    strips: Strips | None = None
    mac_factor: float = 1.0
    stored: int = 0


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
    choices = _choices(problem, wanted)
    if wanted.mac_factor > 1 and reselect is not None:
        for strips in promising(problem, wanted.mac_factor):
            choices += _in_strips(graph, profile, strips, feeds, wanted, reselect)
    slack = SLACK[selection.core.optimize]
    limit = slack * min(c.instructions for c in choices)
    if wanted.ram is not None:
        choices = _fitted(choices, wanted.ram, profile)
        if not any(_fits(c, wanted.ram) and c.instructions <= limit for c in choices):
            choices += _stored(problem, wanted.ram, limit, wanted.flash)
    else:
        able = limit if wanted.schedule == "auto" else float("inf")
        choices = _smallest(choices, able, profile)
    choices = _front(choices)
    index = _choose(choices, wanted, slack)
    chosen = choices[index]
    if not chosen.plan.optimal:
        effort = _FINAL_EFFORT * (_HARDER if chosen.strips else 1)
        plan = placed_again(chosen.graph, profile, chosen.plan, allocator, effort, _SOLVER_SECONDS)
        chosen = choices[index] = replace(chosen, plan=plan)
    _check_fits(chosen.plan, wanted)
    return chosen, tuple(choices)


def least_ram(
    graph: Graph, profile: IntegerProfile, selection: Selection, streamed_input: bool = False
) -> MemoryPlan:
    """Return a plan of little RAM, found fast: for searches that plan many networks."""
    feeds = frozenset(graph.inputs) if streamed_input else frozenset()
    problem = Problem(graph, profile, selection, feeds)
    way = front(problem)[0]
    cuts = [problem.cut(o) for o in way.options()]
    return materialise(
        graph,
        profile,
        selection,
        problem.scheduler,
        cuts,
        "greedy",
        streamed_input,
        effort=_MORE_EFFORT,
    )


def _in_strips(
    graph: Graph,
    profile: IntegerProfile,
    strips: Strips,
    feeds: frozenset[int],
    wanted: Wanted,
    reselect: Callable[[Graph], Selection],
) -> list[Choice]:
    """Return plans of the network split into strips, whose outputs are the same."""
    pieces = split(graph, strips)
    prove(graph, pieces, profile, "split")
    selection = joined(pieces, reselect(pieces), strips)
    factor = work_factor(graph, strips)
    return [
        replace(c, strips=strips, mac_factor=factor)
        for c in _choices(Problem(pieces, profile, selection, feeds, rereads=True), wanted)
    ]


def _choices(problem: Problem, wanted: Wanted) -> list[Choice]:
    """Return plans of a network, some of its front and some of what is wanted, items placed."""
    ways = _ways(problem, wanted)
    if not problem.rereads and problem.refine([o for way in ways for o in way.options()]):
        ways = _ways(problem, wanted)
    return _placed(problem, ways)


def _placed(problem: Problem, ways: Sequence[Way]) -> list[Choice]:
    """Return plans of ways, their items placed; not of those whose rows lie too far apart for a
    kernel then.
    """
    graph, profile, selection = problem.graph, problem.profile, problem.selection
    choices = []
    for way in ways:
        cuts = [problem.cut(o) for o in way.options()]
        try:
            plan = materialise(
                graph, profile, selection, problem.scheduler, cuts, "greedy", bool(problem.feeds),
                effort=_EFFORT,
            )  # fmt: skip
        except ValueError:
            continue  # layer by layer there are none such
        choices.append(Choice(plan, way.instructions, graph, stored=way.stored))
    return choices


def _stored(problem: Problem, ram: int, limit: float, flash: int | None) -> list[Choice]:
    """Return plans that fit `ram` for which weights are stored wider, as few of them as it takes
    for no more instructions than the limit, and no more than fit `flash`.
    """
    graph, profile, selection = problem.graph, problem.profile, problem.selection
    if selection.core.optimize != "balanced":
        return []
    roomy = Problem(graph, profile, selection, problem.feeds, stored=True)
    constants = sum(node_constants(graph, profile, selection, p) for p in problem.order)
    prices = [share * limit / max(constants, 1) for share in _PRICES]
    for price in prices[::_REFINED]:
        ways = front(roomy, ram=ram, price=price)[-_NEAREST:]
        roomy.refine([o for way in ways for o in way.options()], price)
    ways = [w for price in prices for w in front(roomy, ram=ram, price=price)[-_NEAREST:]]
    room = float("inf") if flash is None else flash - constants
    ways = [w for w in ways if w.stored <= room]
    ways.sort(key=lambda w: (max(w.instructions, limit), w.stored))
    found: list[Choice] = []
    for choice in _placed(roomy, _different(ways)[:_MORE]):
        found += _fitted([choice], ram, profile)
        if _fits(found[-1], ram):
            break
    return found


def _fits(choice: Choice, ram: int) -> bool:
    return choice.plan.arena_bytes <= ram


def _ways(problem: Problem, wanted: Wanted) -> list[Way]:
    """Return ways of several kinds: what is least by itself is not always what fits best."""
    only: tuple[Pace, ...] = ("even", "tight")
    best = front(problem)
    ways = _some(best, _STRIPPED if problem.rereads else _MATERIALISED)
    ways += [w for pace in only for w in front(problem, lean=True, only=pace)[:_LEAN]]
    if not problem.rereads:
        ways += [w for pace in only for w in front(problem, only=pace)[:_LEAN]]
        if wanted.schedule == "auto" and wanted.ram is None:
            limit = SLACK[problem.selection.core.optimize] * best[-1].instructions
            best = [w for w in best if w.instructions <= limit]
        ways += best[:_NEAREST]
    if wanted.ram is not None:
        ways += front(problem, ram=wanted.ram)[-_NEAREST:]
    return _different(ways)


def _different(ways: Sequence[Way]) -> list[Way]:
    """Return each way once."""
    found = {tuple((o.nodes, o.streamed, o.paces) for o in w.options()): w for w in ways}
    return list(found.values())


def _some(ways: list[Way], most: int) -> list[Way]:
    """Return at most so many ways, evenly from least RAM to least instructions."""
    last = len(ways) - 1
    return ways if last < most else [ways[k * last // (most - 1)] for k in range(most)]


def _front(choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices that no other beats in RAM, instructions and flash, least RAM first."""
    kept: list[Choice] = []
    order = sorted(choices, key=lambda c: (c.plan.arena_bytes, c.instructions, c.stored))
    for c in order:
        if all(c.instructions < k.instructions or c.stored < k.stored for k in kept):
            kept.append(c)
    return kept


def _choose(choices: Sequence[Choice], wanted: Wanted, slack: float) -> int:
    """Return which choice is wanted; they are sorted, least RAM first."""
    if wanted.schedule == "layer":
        return len(choices) - 1
    numbers, least = range(len(choices)), choices[0].plan.arena_bytes
    if wanted.schedule == "streamed":
        near = [k for k in numbers if choices[k].plan.arena_bytes <= NEAR * least]
        return min(near, key=lambda k: choices[k].plan.arena_bytes * choices[k].instructions)
    limit = slack * min(c.instructions for c in choices)
    if wanted.ram is not None:
        fitting = [k for k in numbers if _fits(choices[k], wanted.ram)] or [0]
        # Flash is spent where the plan would be slow otherwise, and then as little as that takes.
        good = [k for k in fitting if choices[k].instructions <= limit] or fitting
        return min(
            good, key=lambda k: (choices[k].stored * (good is not fitting), choices[k].instructions)
        )
    return next(k for k in numbers if choices[k].instructions <= limit)


def _fitted(choices: Sequence[Choice], ram: int, profile: IntegerProfile) -> list[Choice]:
    """Place the fastest plans with more effort that could fit and do not yet, until one does."""
    found = list(choices)
    for k in sorted(range(len(found)), key=lambda k: found[k].instructions):
        plan = found[k].plan
        if plan.arena_bytes > ram >= plan.lower_bound_bytes:
            found[k] = _placed_better(found[k], profile)
        if found[k].plan.arena_bytes <= ram:
            break
    return found


def _smallest(choices: Sequence[Choice], limit: float, profile: IntegerProfile) -> list[Choice]:
    """Place those plans of up to `limit` instructions with more effort that could be smallest."""
    found = list(choices)
    able = [k for k, c in enumerate(found) if c.instructions <= limit]
    for k in sorted(able, key=lambda k: found[k].plan.lower_bound_bytes)[:_MORE]:
        plan = found[k].plan
        if plan.lower_bound_bytes < min(found[k].plan.arena_bytes for k in able):
            found[k] = _placed_better(found[k], profile)
    return found


def _placed_better(choice: Choice, profile: IntegerProfile) -> Choice:
    """Return a plan of the front placed with more effort."""
    effort = _MORE_EFFORT * (_HARDER if choice.strips else 1)
    plan = placed_again(choice.graph, profile, choice.plan, "greedy", effort)
    return replace(choice, plan=plan)


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
    """Return the plan of given segments whose items lie at given offsets, as found before.

    Raises ValueError when they do not belong to this graph and selection.
    """
    scheduler, cuts = _cuts_of(graph, profile, selection, segments)
    final, needs, items = prepared(graph, profile, selection, scheduler, cuts, streamed_input)
    if len(offsets) != len(items.items) or min(offsets, default=0) < 0:
        raise ValueError(f"{len(offsets)} offsets for {len(items.items)} items")
    return placed(
        graph, profile, final, needs, items, cuts, offsets, bound, allocator, streamed_input
    )


def plan_segments(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    segments: Sequence[Segment],
    allocator: str = "auto",
    streamed_input: bool = False,
) -> MemoryPlan:
    """Return the plan of given segments, such as those found for a network much like this one.

    Raises ValueError when a streamed one holds nodes that do not work by rows.
    """
    scheduler, cuts = _cuts_of(graph, profile, selection, segments)
    return materialise(graph, profile, selection, scheduler, cuts, allocator, streamed_input)


def _cuts_of(
    graph: Graph, profile: IntegerProfile, selection: Selection, segments: Sequence[Segment]
) -> tuple[Scheduler, list[Cut]]:
    """Return given segments with their schedules; raises ValueError if they cannot be had."""
    known = {p for s in segments for p in s.nodes}
    if known - set(range(len(graph.nodes))):
        raise ValueError(f"segments of nodes {sorted(known)}")
    stored = any(pace in STORED for s in segments for pace in s.paces)
    scheduler = Scheduler(graph, paced(graph, profile, selection, stored))
    cuts: list[Cut] = []
    for s in segments:
        streamed = s.kind == "streamed"
        each = s.paces or EVEN * len(s.nodes)
        if len(each) != len(s.nodes):
            raise ValueError(f"{len(each)} paces of {len(s.nodes)} nodes")
        if streamed and not scheduler.columns.keys() >= set(zip(s.nodes, each, strict=True)):
            raise ValueError(f"nodes {list(s.nodes)} do not work by rows")
        cuts.append((s.nodes, scheduler.stream(s.nodes, s.feeds, each) if streamed else None))
    return scheduler, cuts
