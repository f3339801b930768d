"""Check memory plans: nothing alive is overwritten, bounds hold, the exact plan is the best one."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from builder import Builder
from hostlib import compile_all
from numpy.random import Generator

from tinydeploy.errors import UsageError
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import op_named
from tinydeploy.ops.execute import run_all
from tinydeploy.passes import run_passes
from tinydeploy.plan import exact
from tinydeploy.plan.arena import bound_of, check_no_overlap
from tinydeploy.plan.eject import allocate_greedy
from tinydeploy.plan.items import simple_items
from tinydeploy.plan.layout import ALIGNMENT, Buffer, MemoryPlan
from tinydeploy.plan.planner import plan_layers

PROFILE = PROFILES["litert"]


def network(random: Generator, size: int, name: str) -> Graph:
    """Return a random network: chains, residuals, fan-out, joins, views, several outputs."""
    b = Builder()
    scale, zero = 0.05, -7
    shapes: dict[int, tuple[int, ...]] = {}

    def new(shape: tuple[int, ...]) -> int:
        index = b.tensor(shape, scale=scale, zero=zero)
        shapes[index] = shape
        return index

    inputs = [new((1, 4, 3, 2)) for _ in range(random.integers(1, 3))]
    for _ in range(size):
        pool = list(shapes)[-4:] if random.random() < 0.8 else list(shapes)
        x = int(random.choice(pool))
        shape = shapes[x]
        twins = [i for i in shapes if shapes[i] == shape]
        kind = random.integers(6)
        if kind == 0:
            b.operator("ADD", [x, int(random.choice(twins))], new(shape))
        elif kind == 1:
            other = int(random.choice(twins))
            joined = new((*shape[:-1], 2 * shape[-1]))
            b.operator("CONCATENATION", [x, other], joined, Axis=len(shape) - 1)
        elif kind == 2:
            out = (1, int(np.prod(shape))) if len(shape) == 4 else (1, shape[1] // 2, 1, 2)
            b.operator("RESHAPE", [x, b.constant(out)], new(out))
        elif kind == 3:
            b.operator("MUL", [x, b.tensor((1,), scale=2.0, data=[17])], new(shape))
        elif kind == 4 and len(shape) == 4:
            out = (1, -(-shape[1] // 2), -(-shape[2] // 2), shape[3])
            size_of_window = {"StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2}
            b.operator("MAX_POOL_2D", [x], new(out), **size_of_window)
        elif np.prod(shape) < 400:
            half = new((*shape[:-1], shape[-1]))
            b.operator("QUANTIZE", [x], half)
    made = [i for i in shapes if i not in inputs]
    last = [made[-1]] if made else [inputs[0]]
    extra = [int(random.choice(made))] if made and random.random() < 0.5 else []
    content = b.build(inputs, list(dict.fromkeys(last + extra)))
    return run_passes(read_bytes(content, name), PROFILE, optimise=bool(random.random() < 0.5))


def check_ownership(graph: Graph, plan: MemoryPlan) -> None:
    """Simulate who owns which byte, step by step, from the nodes alone.

    Before a node runs, every tensor it reads must still own all its bytes. Writing takes over
    the bytes written; a view writes nothing and owns its input's bytes too.
    """
    contents: dict[int, tuple[int, ...]] = {}  # tensor -> the origin that its bytes must show
    memory: list[int] = [-1] * plan.arena_bytes

    def span(tensor: int) -> range:
        start = plan.offset_of(tensor)
        assert start >= 0 and start + graph.tensors[tensor].bytes <= plan.arena_bytes
        return range(start, start + graph.tensors[tensor].bytes)

    def write(tensor: int) -> None:
        contents[tensor] = (tensor,)
        for k in span(tensor):
            memory[k] = tensor

    def intact(tensor: int) -> bool:
        return all(memory[k] in contents[tensor] for k in span(tensor))

    for i in graph.inputs:
        write(i)
    for position, node in enumerate(graph.nodes):
        reads = [i for i in node.inputs if i is not None and not graph.tensors[i].constant]
        assert all(intact(i) for i in reads), f"node {position} reads what was overwritten"
        if op_named(node.op).view:
            source = reads[0]
            assert plan.offset_of(node.outputs[0]) == plan.offset_of(source), "a view moved"
            contents[node.outputs[0]] = contents[source]
        else:
            write(node.outputs[0])
            taken = set(span(node.outputs[0]))
            for i in reads:
                if taken.intersection(span(i)):
                    assert plan.offset_of(i) == plan.offset_of(node.outputs[0])
    assert all(intact(i) for i in graph.outputs), "an output was overwritten"


@pytest.mark.parametrize("allocator", ["greedy", "exact"])
def test_no_plan_overwrites_what_is_needed(allocator: str) -> None:
    random = np.random.default_rng(1)
    for k in range(60 if allocator == "greedy" else 12):
        graph = network(random, int(random.integers(1, 16)), f"n{k}")
        plan = plan_layers(graph, allocator)
        check_ownership(graph, plan)
        assert all(offset % ALIGNMENT == 0 for offset in plan.offsets)
        assert plan.lower_bound_bytes <= plan.arena_bytes
        assert bound_of(simple_items(plan.buffers)) <= plan.arena_bytes
        needed = max(o + b.bytes for o, b in zip(plan.offsets, plan.buffers, strict=True))
        assert needed <= plan.arena_bytes


def test_results_on_the_host_do_not_depend_on_the_plan() -> None:
    """In-place operators and views compute what they would in memory of their own."""
    random = np.random.default_rng(2)
    graphs = [network(random, int(random.integers(4, 16)), f"net{k}") for k in range(40)]
    plans = [plan_layers(g, "greedy") for g in graphs]
    shared = sum(len(b.tensors) > 1 for p in plans for b in p.buffers)
    assert shared > 40  # otherwise nothing in place was tried
    for graph, host in zip(graphs, compile_all(graphs, PROFILE, plans=plans), strict=True):
        inputs = [
            random.integers(-128, 128, graph.tensors[i].shape).astype(np.int8) for i in graph.inputs
        ]
        values = run_all(graph, inputs, PROFILE)
        for fill in (0x00, 0xFF):
            for index, got in zip(graph.outputs, host.run(inputs, fill), strict=True):
                np.testing.assert_array_equal(got, values[index])


def random_buffers(random: Generator, count: int, most: int) -> tuple[Buffer, ...]:
    found = []
    for k in range(count):
        first = int(random.integers(0, 6))
        last = first + int(random.integers(0, 4))
        found.append(Buffer(f"b{k}", (k,), ALIGNMENT * int(random.integers(1, most)), first, last))
    return tuple(found)


def best_arena(buffers: Sequence[Buffer]) -> int:
    """Return the least arena by brute force.

    Some optimal plan has every buffer on the floor or directly on one placed before, so trying
    all orders with the lowest fitting offset finds one.
    """
    best = sum(b.bytes for b in buffers)
    for order in itertools.permutations(range(len(buffers))):
        placed: list[tuple[int, Buffer]] = []
        for k in order:
            b = buffers[k]
            rivals = [(o, p) for o, p in placed if p.first <= b.last and b.first <= p.last]
            spots = [0, *(o + p.bytes for o, p in rivals)]
            at = min(
                s for s in spots
                if all(s + b.bytes <= o or o + p.bytes <= s for o, p in rivals)
            )  # fmt: skip
            placed.append((at, b))
        best = min(best, max(o + p.bytes for o, p in placed))
    return best


def test_the_exact_allocator_is_optimal() -> None:
    random = np.random.default_rng(3)
    improved = 0
    for _ in range(25):
        buffers = random_buffers(random, 6, 8)
        items = simple_items(buffers)
        offsets, greedy = allocate_greedy(items, effort=0)
        check_no_overlap(items, offsets)
        found, total, proven = exact.allocate_exact(items, offsets, greedy)
        check_no_overlap(items, found)
        best = best_arena(buffers)
        assert total == proven == best
        assert bound_of(items) <= total <= greedy
        improved += total < greedy
    larger = simple_items(random_buffers(np.random.default_rng(7), 24, 60))
    offsets, greedy = allocate_greedy(larger)
    found, total, proven = exact.allocate_exact(larger, offsets, greedy)
    check_no_overlap(larger, found)
    assert proven <= total <= greedy


def test_brute_force_beats_a_bad_order() -> None:
    """Keep the yardstick honest: a case whose optimum is known, and not the largest first."""
    spans = ((8, 0, 1), (4, 1, 2), (8, 2, 3), (4, 3, 4))
    buffers = [Buffer("", (k,), size, a, z) for k, (size, a, z) in enumerate(spans)]
    assert best_arena(buffers) == 12


def test_overlaps_are_noticed() -> None:
    a, b = Buffer("a", (0,), 8, 0, 2), Buffer("b", (1,), 8, 2, 3)
    check_no_overlap(simple_items((a, b)), (0, 8))
    with pytest.raises(ValueError, match="overlap"):
        check_no_overlap(simple_items((a, b)), (0, 4))
    check_no_overlap(simple_items((a, Buffer("c", (2,), 8, 3, 3))), (0, 0))


def test_plans_are_reproducible() -> None:
    for allocator in ("greedy", "exact"):
        plans = [
            plan_layers(network(np.random.default_rng(4), 12, "n"), allocator) for _ in range(2)
        ]
        assert plans[0].offsets == plans[1].offsets


def test_without_the_solver_exact_is_refused_and_auto_is_greedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    monkeypatch.setattr("tinydeploy.plan.planner.solver_installed", lambda: False)
    graph = network(np.random.default_rng(5), 12, "n")
    assert plan_layers(graph).allocator == "greedy"
    with pytest.raises(UsageError, match="ortools"):
        plan_layers(graph, "exact")


def test_ejection_comes_near_the_bound() -> None:
    """Where first fit leaves an eighth unused, and all orders of a few items are known."""
    random = np.random.default_rng(5)
    more = 0.0
    for _ in range(12):
        buffers = random_buffers(random, 7, 8)
        items = simple_items(buffers)
        offsets, total = allocate_greedy(items)
        check_no_overlap(items, offsets)
        assert total == best_arena(buffers)
    for _ in range(3):
        items = simple_items(random_buffers(random, 120, 60))
        first, (offsets, total) = allocate_greedy(items, effort=0)[1], allocate_greedy(items)
        check_no_overlap(items, offsets)
        assert bound_of(items) <= total <= first
        more += total / bound_of(items) - 1
    assert more / 3 < 0.03
