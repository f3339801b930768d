"""Explanations of the peak: its parts, and networks with one change that are planned again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import tinydeploy
from kernel_lab import Net

from tinydeploy.importers.tflite import read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops._pool import Attributes as PoolAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.plan.explain import Explanation, explain
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.search import plan_segments
from tinydeploy.plan.select import portable
from tinydeploy.plan.variants import Change, UnfitError, apply, changes
from tinydeploy.report.explanation import explanation_figures, explanation_lines

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
LITERT = PROFILES["litert"]
MODELS = os.environ.get("TINYDEPLOY_MODELS", "")


def wide_kernel() -> Graph:
    """A 7x7 depthwise convolution between two pointwise ones, then a pool and a dense layer."""
    net = Net(np.random.default_rng(0), "wide")
    x = net.conv(net.input(20, 20, 3), 24, (1, 1), zero=0)
    x = net.depthwise(x, (7, 7), stride=2, zero=0)
    x = net.conv(x, 8)
    pool = PoolAttributes(Window(10, 10, 1, 1, "VALID", "NONE"), 10, 10)
    y = net._finish("AVERAGE_POOL_2D", [x], pool, 1, 0)
    net.tensors[y] = replace(net.tensors[y], quantization=net.tensors[x].quantization)
    net.output(net.dense(y, 5))
    return net.graph()


def residual() -> Graph:
    net = Net(np.random.default_rng(1), "residual")
    x = net.conv(net.input(16, 16, 4), 8, zero=0)
    y = net.depthwise(net.conv(x, 24), (5, 5))
    net.output(net.conv(net.plus(x, net.conv(y, 8)), 2))
    return net.graph()


def in_segments(graph: Graph, *runs: tuple[int, ...]) -> MemoryPlan:
    segments = [Segment("streamed" if len(r) > 1 else "layer", r) for r in runs]
    return plan_segments(graph, LITERT, portable(graph, LITERT), segments, "greedy")


def layers(graph: Graph) -> MemoryPlan:
    return plan_layers(graph, "greedy", portable(graph, LITERT), LITERT)


def explained(graph: Graph, *runs: tuple[int, ...], seconds: float = 60) -> Explanation:
    def keep(other: Graph) -> MemoryPlan:
        return in_segments(other, *runs) if runs else layers(other)

    return explain(graph, keep(graph), keep, keep, seconds)


def all_changes(graph: Graph) -> list[Change]:
    return list(
        changes(graph, tuple(range(len(graph.nodes))), frozenset(range(len(graph.tensors))))
    )


@pytest.mark.parametrize("make", [wide_kernel, residual, lambda: digits()])
def test_every_changed_network_runs(make: Callable[[], Graph]) -> None:
    """Shapes, weights, scales and biases fit: the reference computes it, the planner plans it."""
    graph = make()
    kinds = set()
    for change in all_changes(graph):
        try:
            other = apply(graph, change)
        except UnfitError:
            continue
        kinds.add(change.kind)
        inputs = [np.zeros(other.tensors[i].shape, np.int8) for i in other.inputs]
        for value, index in zip(run_outputs(other, inputs, LITERT), other.outputs, strict=True):
            assert value.shape == other.tensors[index].shape
        assert layers(other).arena_bytes > 0
        assert [n.op for n in other.nodes] == [n.op for n in graph.nodes]
    assert kinds >= {"stride", "width"}


def digits() -> Graph:
    return run_passes(read_file(DIGITS), LITERT)


def change_of(graph: Graph, node: int, kind: str) -> Change:
    return next(c for c in all_changes(graph) if (c.node, c.kind) == (node, kind))


def test_what_each_change_does_to_shapes() -> None:
    graph = wide_kernel()
    small = apply(graph, change_of(graph, 1, "kernel"))
    assert small.tensors[small.nodes[1].inputs[1]].shape == (1, 3, 3, 24)
    assert small.tensors[small.nodes[1].outputs[0]].shape == (1, 10, 10, 24)
    stride = apply(graph, change_of(graph, 1, "stride"))
    assert stride.tensors[stride.nodes[1].outputs[0]].shape == (1, 5, 5, 24)
    assert stride.tensors[stride.nodes[3].outputs[0]].shape == (1, 1, 1, 8)  # a pool of the whole
    narrow = apply(graph, change_of(graph, 0, "width"))
    assert narrow.tensors[narrow.nodes[0].outputs[0]].shape == (1, 20, 20, 18)
    assert narrow.tensors[narrow.nodes[1].outputs[0]].shape == (1, 10, 10, 18)
    scales = narrow.tensors[narrow.nodes[1].inputs[1]].quantization
    assert scales is not None and len(scales.scales) == 18
    assert narrow.tensors[narrow.nodes[2].inputs[1]].shape == (8, 1, 1, 18)
    dense = apply(graph, change_of(graph, 2, "width"))
    assert dense.tensors[dense.nodes[4].inputs[1]].shape == (5, 6)


def test_a_stride_inside_a_residual_block_is_no_network() -> None:
    graph = residual()
    with pytest.raises(UnfitError, match="node 4 ADD"):
        apply(graph, change_of(graph, 2, "stride"))
    # Both ends of the skip keep one width.
    narrow = apply(graph, change_of(graph, 0, "width"))
    assert {narrow.tensors[narrow.nodes[p].outputs[0]].shape[3] for p in (0, 3, 4)} == {6}


def test_a_smaller_kernel_shortens_the_ring() -> None:
    graph = wide_kernel()
    runs = ((0, 1, 2), (3,), (4,))
    e = explained(graph, *runs)
    (ring,) = [
        p for p in e.parts if p.place.kind == "ring" and 0 in _makers(graph, p.place.tensors)
    ]
    assert [(r.node, r.reach) for r in ring.readers] == [(1, 7)] and ring.place.rows_held >= 7
    kernel = next(v for v in e.variants if v.change.kind == "kernel")
    assert kernel.change.after == "3x3" and kernel.arena_bytes < e.arena_bytes
    again = in_segments(apply(graph, kernel.change), *runs)
    assert kernel.arena_bytes == again.arena_bytes and kernel.searched
    text = "\n".join(explanation_lines(graph, e))
    saved = round(100 * (1 - kernel.arena_bytes / e.arena_bytes))
    assert (
        f"node 1 DEPTHWISE_CONV_2D 7x7 -> 3x3: arena {e.arena_bytes:,} -> "
        f"{kernel.arena_bytes:,} (-{saved} %)" in text
    )
    assert "node 1 DEPTHWISE_CONV_2D reads 7 at a time" in text


def _makers(graph: Graph, tensors: tuple[int, ...]) -> list[int]:
    return [p for p, n in enumerate(graph.nodes) if set(n.outputs) & set(tensors)]


def test_whole_layers_do_not_care_about_kernels() -> None:
    e = explained(wide_kernel())
    kernels = [v for v in e.variants if v.change.kind == "kernel"]
    assert kernels and all(v.arena_bytes == e.arena_bytes for v in kernels)
    assert "other changes at these layers do not lower it" in "\n".join(
        explanation_lines(wide_kernel(), e)
    )


def test_a_sum_makes_its_ring_wait() -> None:
    graph = residual()
    e = explained(graph, (0, 1, 2, 3, 4), (5,))
    skip = next(p for p in e.parts if 0 in _makers(graph, p.place.tensors))
    assert skip.place.kind == "ring" and 2 in skip.waits_for
    assert "they wait for the windows of nodes 2" in "\n".join(explanation_lines(graph, e))


def test_without_time_the_segments_stay_and_the_rest_is_counted() -> None:
    graph = wide_kernel()
    full, short = explained(graph), explained(graph, seconds=0)
    assert len(short.variants) == 1 and not short.variants[0].searched
    assert short.untried == len(full.variants) - 1
    assert "not tried for lack of time" in "\n".join(explanation_lines(graph, short))


@pytest.mark.parametrize("runs", [(), ((0, 1, 2, 3, 4), (5,))])
def test_parts_are_all_that_is_alive(runs: tuple[tuple[int, ...], ...]) -> None:
    graph = residual()
    e = explained(graph, *runs)
    assert sum(p.bytes for p in e.parts) == e.view.alive_bytes
    for part in e.parts:
        assert 0 < part.bytes <= part.place.bytes and part.rows <= part.place.rows_held
    figures = explanation_figures(graph, e)
    assert figures.alive_bytes == e.view.alive_bytes <= e.arena_bytes
    assert len(figures.variants) == len(e.variants)


def test_command_line(tmp_path: Path) -> None:
    page = tmp_path / "why.html"

    def run(*options: object) -> str:
        return tinydeploy("plan", DIGITS, "--explain", *options).stdout

    document = json.loads(run("--json", "--report", page))
    why, arena = document["explain"], document["memory"]["arena_bytes"]
    assert why["alive_bytes"] <= arena and why["variants"]
    assert all(v["arena_bytes"] > 0 and v["op"] for v in why["variants"])
    assert sum(b["bytes"] for b in why["buffers"]) == why["alive_bytes"]
    assert "What makes the peak" in page.read_text(encoding="utf-8")
    text = run()
    assert re.search(r"^peak: [\d,]+ bytes alive at node", text, re.M)
    assert re.search(r"node \d+ \w+ .* -> .*: arena [\d,]+ -> .*\(-\d[\d.]* %\)", text)


@pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set")
def test_mcunet_layer_by_layer() -> None:
    """The expansion before the first strided depthwise convolution is what costs."""
    path = Path(MODELS) / "mcunet" / "mcunet_vww.tflite"
    graph = run_passes(read_file(path), LITERT)
    e = explained(graph)
    assert e.arena_bytes == 94_000 and e.view.segment.nodes == (4,)
    best = e.variants[0]
    assert (best.change.node, best.change.kind, best.arena_bytes) == (3, "stride", 44_800)
