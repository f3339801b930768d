"""Passes that drop work: the same outputs from fewer channels, nodes and bytes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kernel_lab import Net

from tinydeploy.importers.tflite import read_file
from tinydeploy.ir import Graph
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs, total_macs
from tinydeploy.ops.pad import Attributes as PadAttributes
from tinydeploy.ops.transpose import Attributes as TransposeAttributes
from tinydeploy.passes import run_passes

LITERT = PROFILES["litert"]
MODELS = os.environ.get("TINYDEPLOY_MODELS", "")


def assert_same(before: Graph, after: Graph, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(6):
        inputs = [
            random.choice(
                np.array([random.integers(-128, 128), -128, 127, 0]), before.tensors[i].shape
            ).astype(np.int8)
            for i in before.inputs
        ]
        for a, b in zip(
            run_outputs(before, inputs, LITERT), run_outputs(after, inputs, LITERT), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def changed(graph: Graph, tensor: int, data: np.ndarray) -> Graph:
    tensors = list(graph.tensors)
    tensors[tensor] = replace(tensors[tensor], data=constant(data))
    return graph.replace(tensors=tuple(tensors))


def mobile_net(random: np.random.Generator, dead: float) -> Graph:
    """A chain of pointwise and depthwise layers in which a share of the channels is constant."""
    net = Net(random)
    x = net.conv(net.input(15, 13, 3), 10, (3, 3), stride=2, activation="RELU", zero=-128)
    x = net.depthwise(x, stride=int(random.integers(1, 3)), activation="RELU", zero=-128)
    x = net.conv(x, 12, activation="RELU", zero=int(random.choice([-128, 3])))
    x = net.depthwise(x, activation="RELU", padding=str(random.choice(["SAME", "VALID"])))
    net.output(net.conv(x, 5))
    graph = net.graph()
    for node in graph.nodes[:-1]:
        w, b = graph.tensor(node.inputs[1]), graph.tensor(node.inputs[2])
        axis = 0 if node.op == "CONV_2D" else 3
        chosen = random.random(w.shape[axis]) < dead
        data, bias = w.data.copy(), b.data.copy()
        index = [slice(None)] * 4
        index[axis] = chosen
        data[tuple(index)] = 0 if random.random() < 0.5 else data[tuple(index)]
        bias[chosen] = random.choice([-(2**29), 2**29, 0], int(chosen.sum()))
        graph = changed(changed(graph, node.inputs[1], data), node.inputs[2], bias)
    return graph


@pytest.mark.parametrize("seed", range(25))
def test_dead_channels_go_and_nothing_else_changes(seed: int) -> None:
    graph = mobile_net(np.random.default_rng(seed), dead=0.4)
    after = run_passes(graph, LITERT)
    assert_same(graph, after, seed)
    assert total_macs(after) < total_macs(graph)


def test_live_channels_stay() -> None:
    graph = mobile_net(np.random.default_rng(1), dead=0.0)
    assert total_macs(run_passes(graph, LITERT)) == total_macs(graph)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", ["conv", "depthwise"])
def test_pad_becomes_part_of_the_convolution(op: str, stride: int, padding: str) -> None:
    net = Net(np.random.default_rng(3))
    x = net.input(7, 6, 4, zero=5)
    pads = PadAttributes((0, 2, 0, 0), (0, 1, 3, 0))
    out = net._finish("PAD", [x], pads, 1, 5)
    net.tensors[out] = replace(net.tensors[out], quantization=net.tensors[x].quantization)
    y = (
        net.conv(out, 3, (3, 2), stride=stride, padding=padding)
        if op == "conv"
        else net.depthwise(out, (3, 3), stride=stride, padding=padding)
    )
    net.output(y)
    graph = net.graph()
    after = run_passes(graph, LITERT)
    assert [n.op for n in after.nodes] == [graph.nodes[1].op]
    assert_same(graph, after)


def test_transpose_of_single_axes_is_a_view() -> None:
    net = Net(np.random.default_rng(3))
    x = net.input(1, 6, 4, zero=5)
    y = net._finish("TRANSPOSE", [x], TransposeAttributes((0, 2, 1, 3)), 1, 5)
    net.tensors[y] = replace(net.tensors[y], quantization=net.tensors[x].quantization)
    net.output(net.conv(y, 3))
    graph = net.graph()
    after = run_passes(graph, LITERT)
    assert [n.op for n in after.nodes] == ["RESHAPE", "CONV_2D"]
    assert_same(graph, after)


@pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set")
def test_half_of_vww_is_dead() -> None:
    graph = read_file(Path(MODELS) / "mlperf_tiny" / "vww_int8.tflite")
    assert total_macs(graph) == 7_489_664
    assert total_macs(run_passes(graph, LITERT)) < 3_800_000
