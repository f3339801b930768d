"""Streamed plans: the same bytes from less memory, over random networks and public ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostlib import compile_all
from kernel_lab import Net

from tinydeploy.errors import TinydeployError
from tinydeploy.importers.tflite import read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._pool import Attributes as PoolAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.concatenation import Attributes as ConcatAttributes
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.plan import search
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.liveness import keep_outside
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.rows import paced
from tinydeploy.plan.select import Selection, portable, select
from tinydeploy.plan.simulate import simulate
from tinydeploy.plan.stream import Scheduler
from tinydeploy.targets import load_target

LITERT = PROFILES["litert"]
MODELS = os.environ.get("TINYDEPLOY_MODELS", "")
ROOT = Path(__file__).resolve().parents[2]


def same_scale(net: Net, tensor: int, like: int) -> int:
    net.tensors[tensor] = replace(net.tensors[tensor], quantization=net.tensors[like].quantization)
    return tensor


def plan_streamed(graph: Graph, selection: Selection, streamed_input: bool = False) -> MemoryPlan:
    wanted = search.Wanted("streamed", streamed_input=streamed_input)
    return search.plan(graph, LITERT, selection, wanted, "greedy")[0].plan


def random_network(seed: int) -> Graph:
    """Chains with residual sums, concatenations and pools; odd sizes, strides and kernels."""
    random = np.random.default_rng(seed)
    net = Net(random, f"net{seed}")
    x = net.input(
        int(random.integers(9, 24)), int(random.integers(5, 16)), int(random.integers(1, 6))
    )
    for _ in range(int(random.integers(3, 8))):
        kind = random.choice(["conv", "depthwise", "residual", "concat", "pool", "pointwise"])
        height, width, channels = net.tensors[x].shape[1:]
        kernel = int(random.choice([1, 2, 3, 5]))
        stride = int(random.choice([1, 1, 2])) if min(height, width) > 4 else 1
        if kind == "conv":
            x = net.conv(x, int(random.integers(2, 9)), (kernel, kernel), stride=stride)
        elif kind == "depthwise":
            x = net.depthwise(x, (kernel, kernel), stride=stride)
        elif kind == "pointwise":
            x = net.conv(x, int(random.integers(2, 9)))
        elif kind == "residual":
            y = net.conv(net.depthwise(net.conv(x, channels + 3), (kernel, kernel)), channels)
            x = net.plus(x, y)
        elif kind == "concat":
            y = same_scale(net, net.conv(x, 3, (kernel, kernel)), x)
            x = same_scale(net, net._finish("CONCATENATION", [x, y], ConcatAttributes(3), 1, 0), y)
        elif min(height, width) > 3:
            window = Window(2, 2, 1, 1, "VALID", "NONE")
            y = net._finish("MAX_POOL_2D", [x], PoolAttributes(window, 2, 2), 1, 0)
            x = same_scale(net, y, x)
    net.output(net.conv(x, 2))
    return net.graph()


@pytest.mark.parametrize(
    ("input_from", "mac_factor"),
    [("ram", 1.0), ("streamed", 1.0), ("ram", 1.5), ("streamed", 2.0), ("flash", 1.0)],
)
@pytest.mark.parametrize("seeds", [range(k, k + 8) for k in (0, 8, 16)])
def test_random_networks(seeds: range, input_from: str, mac_factor: float) -> None:
    """Every mode gives the same bytes, and none needs more than layer by layer."""
    common = mac_factor == 1 and input_from == "ram"
    graphs = [random_network(seed) for seed in (seeds if common else seeds[:4])]
    wanted = search.Wanted("streamed", None, input_from == "streamed", mac_factor)
    allocator = "auto" if common else "greedy"
    choices = []
    for graph in graphs:
        selection = portable(graph, LITERT)
        whole = plan_layers(graph, "greedy", selection, LITERT)
        if input_from == "flash":
            selection = keep_outside(graph, selection, graph.inputs)
        choice, _ = search.plan(
            graph, LITERT, selection, wanted, allocator, lambda g: portable(g, LITERT)
        )
        assert choice.plan.lower_bound_bytes <= choice.plan.arena_bytes <= whole.arena_bytes
        assert choice.mac_factor <= mac_factor
        simulate(choice.graph, choice.plan, LITERT)
        choices.append(choice)
    plans = [c.plan for c in choices]
    assert sum(any(s.calls for s in p.segments) for p in plans) > len(plans) // 2
    pieces = [c.graph for c in choices]
    random = np.random.default_rng(0)
    for graph, plan, model in zip(
        graphs, plans, compile_all(pieces, LITERT, plans=plans), strict=True
    ):
        for _ in range(2):
            inputs = [
                random.integers(-128, 128, graph.tensors[i].shape).astype(np.int8)
                for i in graph.inputs
            ]
            wanted = run_outputs(graph, inputs, LITERT)
            for got, want in zip(model.run(inputs), wanted, strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{graph.name} {plan.segments}")


def check_schedule(graph: Graph, nodes: tuple[int, ...]) -> None:
    """Execute a schedule on row numbers: every row read must exist, and be needed until then."""
    s = Scheduler(graph, {"even": portable(graph, LITERT)}).stream(nodes)
    made = dict.fromkeys((graph.nodes[p].outputs[0] for p in nodes), 0)
    for step, k in enumerate(s.calls.tolist()):
        node = graph.nodes[nodes[k]]
        call = Call(graph, node)
        out = node.outputs[0]
        for source in op_named(node.op).region(call):
            index = node.inputs[source.input]
            for row in source.rows(made[out]):
                if 0 <= row < graph.tensors[index].rows and not graph.tensors[index].constant:
                    assert row < made.get(index, row + 1), "reads a row that is not there yet"
                    assert s.lives[index].read[row] >= step, "reads a row that is gone"
        assert s.lives[out].written[made[out]] == step
        made[out] += 1
    for tensor, rows in made.items():
        assert rows == graph.tensors[tensor].rows


@pytest.mark.parametrize("seed", range(20))
def test_schedules_read_only_what_is_there(seed: int) -> None:
    graph = random_network(seed)
    for first in range(len(graph.nodes)):
        for last in range(first + 1, min(first + 6, len(graph.nodes)) + 1):
            check_schedule(graph, tuple(range(first, last)))


def test_a_plan_can_be_made_again() -> None:
    graph = run_passes(read_file(ROOT / "examples" / "digits" / "digits_int8.tflite"), LITERT)
    selection = portable(graph, LITERT)
    plan = plan_streamed(graph, selection)
    bound, used = plan.lower_bound_bytes, plan.allocator
    again = search.plan_again(graph, LITERT, selection, plan.segments, plan.offsets, bound, used)
    assert again == plan
    with pytest.raises(ValueError, match="offsets"):
        search.plan_again(graph, LITERT, selection, plan.segments, plan.offsets[1:], 0, "greedy")
    with pytest.raises(ValueError, match="overlap"):
        offsets = [0] * len(plan.offsets)
        search.plan_again(graph, LITERT, selection, plan.segments, offsets, 0, "greedy")


def test_rows_computed_as_one() -> None:
    """Narrow images whose rows lie together are one longer row to pointwise kernels."""
    net = Net(np.random.default_rng(5), "folded")
    x = net.input(24, 5, 3)
    for _ in range(2):
        y = net.conv(net.depthwise(net.conv(x, 6), (3, 3)), 3)
        x = net.plus(x, y)
    net.output(net.conv(x, 2))
    built = net.graph()
    numbers = [n for n in paced(built, LITERT, portable(built, LITERT)) if isinstance(n, int)]
    graphs = [built.replace(name=f"folded{rows}") for rows in numbers]
    plans = []
    for graph, rows in zip(graphs, numbers, strict=True):
        selection = portable(graph, LITERT)
        able = paced(graph, LITERT, selection)[rows].kernels
        paces = tuple(rows if able[p] else "even" for p in range(len(graph.nodes)))
        assert paces.count(rows) > 4
        segment = Segment("streamed", tuple(range(len(graph.nodes))), paces=paces)
        plans.append(search.plan_segments(graph, LITERT, selection, [segment], "greedy"))
        simulate(graph, plans[-1], LITERT)
    assert len(plans) > 1
    image = np.random.default_rng(0).integers(-128, 128, (1, 24, 5, 3)).astype(np.int8)
    (want,) = run_outputs(built, [image], LITERT)
    for model in compile_all(graphs, LITERT, plans=plans):
        np.testing.assert_array_equal(model.run([image])[0], want)


def test_families_that_are_not_proven_by_rows_stay_whole() -> None:
    from tinydeploy.pipeline import core_of

    graph = run_passes(read_file(ROOT / "examples" / "digits" / "digits_int8.tflite"), LITERT)
    selection = select(graph, LITERT, core_of(load_target("riscv-virt"), "balanced"))
    plan = plan_streamed(graph, selection)
    for segment in plan.segments:
        for position in segment.nodes if segment.calls else ():
            kernel = plan.selection.kernels[position]
            assert kernel is not None and kernel.by_rows


@pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set")
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("mlperf_tiny/vww_int8", 29_000),
        ("mlperf_tiny/ic_int8", 20_000),
        ("mlperf_tiny/sww_int8", 4_700),
        ("mcunet/mcunet_vww", 22_800),
        ("mcunet/mcunet_detection", 90_000),
        ("tflm/person_detect", 15_200),
        ("mlperf_tiny/kws_int8", 8_900),
    ],
)
def test_arenas_of_public_models(name: str, most: int) -> None:
    """Portable kernels, input and output included, nothing computed twice."""
    graph = run_passes(read_file(Path(MODELS) / f"{name}.tflite"), LITERT)
    plan = plan_streamed(graph, portable(graph, LITERT))
    simulate(graph, plan, LITERT)
    assert plan.arena_bytes <= most


def test_the_simulator_sees_what_is_overwritten() -> None:
    seen = 0
    for seed in range(6):
        graph = random_network(seed)
        plan = plan_streamed(graph, portable(graph, LITERT))
        for k, at in enumerate(plan.offsets):
            for step in (-8, 8):
                if not 0 <= at + step <= plan.arena_bytes - plan.items.items[k].bytes:
                    continue
                moved = (*plan.offsets[:k], at + step, *plan.offsets[k + 1 :])
                try:
                    simulate(graph, replace(plan, offsets=moved), LITERT)
                except TinydeployError:
                    seen += 1
    assert seen > 40


def test_strips_are_computed_and_joined() -> None:
    net = Net(np.random.default_rng(3), "strips")
    x = net.input(33, 31, 2)
    for channels in (6, 6, 8):
        x = net.depthwise(net.conv(x, channels, (3, 3)), (3, 3), stride=2 if channels > 6 else 1)
    net.output(net.conv(x, 3))
    graph = net.graph()
    wanted = search.Wanted("streamed", None, True, 2.0)
    choice, front = search.plan(
        graph, LITERT, portable(graph, LITERT), wanted, reselect=lambda g: portable(g, LITERT)
    )
    assert choice.strips is not None and 1 < choice.mac_factor <= 2
    plain = next(c for c in front if c.strips is None)
    assert choice.plan.arena_bytes < plain.plan.arena_bytes
