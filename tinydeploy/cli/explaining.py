"""Turn a prepared network into the reasons for its arena, by planning networks much like it."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph
from tinydeploy.pipeline import Clock, Prepared, selected
from tinydeploy.plan import search
from tinydeploy.plan.explain import Explanation, explain
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.select import Selection


def explained(
    prepared: Prepared, allocator: str, clock: Clock, seconds: float = 8.0
) -> Explanation:
    """Return what makes the arena as large as it is and which changes would lower it.

    Takes `seconds` at most, but for the first change.
    """
    if prepared.strips:
        raise UsageError(
            "--explain looks at networks as they are, not in strips", "", "leave out --mac-factor"
        )
    profile, core, wanted = prepared.profile, prepared.plan.selection.core, prepared.wanted
    if wanted.ram is not None:
        # A budget asks for the fastest plan within it; here the question is how small it can be.
        wanted = replace(wanted, ram=None, schedule="streamed")

    def chosen(graph: Graph) -> Selection:
        return selected(graph, profile, core, wanted)

    def again(graph: Graph) -> MemoryPlan:
        choice, _ = search.plan(graph, profile, chosen(graph), wanted, allocator)
        return choice.plan

    def keep(graph: Graph) -> MemoryPlan:
        segments, streamed = prepared.plan.segments, wanted.streamed_input
        return search.plan_segments(graph, profile, chosen(graph), segments, allocator, streamed)

    one_search = dict(clock.stages).get("plan", 0.0)
    with clock.stage("explain") as progress:
        return explain(prepared.graph, prepared.plan, again, keep, seconds, one_search, progress)
