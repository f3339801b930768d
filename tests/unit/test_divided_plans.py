"""Plans over several memories: each buffer in one, the busiest in the fastest, the same outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hostlib import compile_all
from kernel_lab import Net

from tinydeploy.codegen import Provenance, generate
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs
from tinydeploy.plan import search
from tinydeploy.plan.exact import solver_installed
from tinydeploy.plan.layout import Arena, MemoryPlan
from tinydeploy.plan.memories import Room, divided, in_memories, spread, traffic, waiting_cycles
from tinydeploy.plan.select import portable
from tinydeploy.plan.simulate import simulate

LITERT = PROFILES["litert"]


def network(seed: int) -> Graph:
    """Return a chain with a residual sum; the image and its first layers are the largest."""
    net = Net(np.random.default_rng(seed), f"memories{seed}")
    x = net.conv(net.input(17 + seed, 12, 3), 6, (3, 3))
    x = net.depthwise(x, (3, 3), stride=2)
    x = net.plus(x, net.conv(net.depthwise(net.conv(x, 9), (3, 3)), 6))
    net.output(net.conv(x, 2))
    return net.graph()


def planned(graph: Graph, schedule: search.Schedule) -> search.Choice:
    wanted = search.Wanted(schedule)
    return search.plan(graph, LITERT, portable(graph, LITERT), wanted, "greedy")[0]


def rooms_for(plan: MemoryPlan) -> list[Room]:
    """Return a memory that is too small, and slower ones that are large enough."""
    small = plan.arena_bytes // 2 // 4 * 4
    return [Room("tcm", small, 0.0), Room("sram", small, 1.0), Room("sdram", 1 << 20, 5.0)]


@pytest.mark.parametrize("schedule", ["layer", "streamed"])
def test_outputs_are_the_same_and_the_heuristic_is_near_the_optimum(
    schedule: search.Schedule,
) -> None:
    graphs = [network(seed) for seed in range(4)]
    plans = []
    for graph in graphs:
        plan = planned(graph, schedule).plan
        rooms = rooms_for(plan)
        greedy = spread(graph, LITERT, plan, rooms, "greedy")
        assert greedy is not None and len(greedy.several) > 1
        assert [a.memory for a in greedy.several] == [
            r.memory for r in rooms if r.memory in {a.memory for a in greedy.several}
        ]
        for arena in greedy.several:
            room = next(r for r in rooms if r.memory == arena.memory)
            assert arena.bytes <= room.bytes
        simulate(graph, greedy, LITERT)
        again = replace(greedy, several=())
        assert divided(again, greedy.several) == greedy
        assert traffic(graph, LITERT, greedy) == traffic(graph, LITERT, plan)
        if solver_installed():
            exact = spread(graph, LITERT, plan, rooms, "exact")
            assert exact is not None
            simulate(graph, exact, LITERT)
            costs = [waiting_cycles(graph, LITERT, p, rooms) for p in (exact, greedy)]
            assert 0 < costs[0] <= costs[1] <= 1.05 * costs[0]
        plans.append(greedy)
    for graph, model in zip(graphs, compile_all(graphs, LITERT, plans=plans), strict=True):
        inputs = [
            np.random.default_rng(5).integers(-128, 128, graph.tensors[i].shape).astype(np.int8)
            for i in graph.inputs
        ]
        for got, want in zip(model.run(inputs), run_outputs(graph, inputs, LITERT), strict=True):
            np.testing.assert_array_equal(got, want)


def test_what_fits_the_first_memory_stays_as_it_is() -> None:
    choice = planned(network(0), "auto")
    rooms = [Room("sram", choice.plan.arena_bytes, 0.0), Room("sdram", 1 << 20, 5.0)]
    same, _ = in_memories(choice, [choice], rooms, LITERT, search.AUTO, "greedy")
    assert same is choice and not same.plan.several
    smaller = [replace(rooms[0], bytes=rooms[0].bytes - 4), rooms[1]]
    other, front = in_memories(choice, [choice], smaller, LITERT, search.AUTO, "greedy")
    assert {a.memory for a in other.plan.several} == {"sram", "sdram"} and front == (other,)
    assert other.plan.within(other.plan.several[0].bytes) == ("sdram", 0)
    none = [replace(r, bytes=64) for r in rooms]
    assert in_memories(choice, [choice], none, LITERT, search.AUTO, "greedy")[0] is choice


def test_least_traffic_goes_to_the_slow_memory() -> None:
    graph = network(0)
    plan = planned(graph, "layer").plan
    moved = traffic(graph, LITERT, plan)
    rooms = rooms_for(plan)
    there = spread(graph, LITERT, plan, rooms, "greedy")
    assert there is not None
    everything = sum(moved) / 4 * 5.0
    assert waiting_cycles(graph, LITERT, there, rooms) < everything / 2
    image = next(k for k, b in enumerate(plan.buffers) if graph.inputs[0] in b.tensors)
    # Written once; the kernel of three rows takes each row three times, but at the border.
    height, row = 17, 12 * 3
    assert moved[image] == height * row + (3 * height - 2) * row


def test_damaged_divisions_are_refused() -> None:
    plan = planned(network(0), "layer").plan
    with pytest.raises(ValueError, match="arenas of"):
        divided(plan, [Arena("a", 8), Arena("b", 8)])
    with pytest.raises(ValueError, match="in two arenas"):
        divided(plan, [Arena("a", 8), Arena("b", plan.arena_bytes - 8)])


def test_constants_that_are_read_least_are_marked_slow() -> None:
    graph = network(0)
    plan = planned(graph, "layer").plan
    about = Provenance("m", "", "host", "c")
    whole = generate(graph, plan, LITERT, about)
    assert whole.slow_const_bytes == 0 and not any(b"SLOW" in c for c in whole.sources.values())
    room = whole.const_bytes - 100
    part = generate(graph, plan, LITERT, about, const_room=room)
    assert part.slow_const_bytes >= 100 and part.const_bytes == whole.const_bytes
    assert part.const_bytes - part.slow_const_bytes <= room
    weights = part.sources["memories0_weights.c"].decode()
    lines = [line for line in weights.splitlines() if "const " in line and "[" in line]
    marked = [line for line in lines if line.startswith("TD_CONST_SLOW const ")]
    # The first layer works on four times the pixels of the others.
    assert marked and all("node0_" not in line for line in marked)
    assert b"#define TD_CONST_SLOW\n" in part.sources["memories0_weights.h"]
    none = generate(graph, plan, LITERT, about, const_room=0)
    assert none.slow_const_bytes == none.const_bytes
