"""Functions of one value: chains become one table, clamps and copies vanish, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builder import Builder
from hostlib import compile_all
from kernel_lab import Net

from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph, Quantization
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops._elementwise import Attributes as Fused
from tinydeploy.ops.execute import run_outputs
from tinydeploy.ops.mean import Attributes as MeanAttributes
from tinydeploy.ops.quantize import Attributes as Composed
from tinydeploy.ops.transpose import Attributes as TransposeAttributes
from tinydeploy.passes import run_passes
from tinydeploy.verify.litert import LiteRt

LITERT = PROFILES["litert"]
EVERY = np.arange(-128, 128).astype(np.int8)
SHARE = Quantization((1 / 256,), (-128,))


def unary(net: Net, op: str, x: int, quantization: Quantization) -> int:
    out = net._finish(op, [x], None, 1, 0)
    net.tensors[out] = replace(net.tensors[out], quantization=quantization)
    return out


def clamp(net: Net, x: int, low: int, high: int) -> int:
    """Append a node that clamps stored values."""
    out = unary(net, "QUANTIZE", x, net.tensors[x].quantization)
    table = np.clip(EVERY, low, high).astype(np.int8).tobytes()
    net.nodes[-1] = replace(net.nodes[-1], attributes=Composed(table))
    return out


def check(graph: Graph) -> Graph:
    """Compare reference before and after, and the C, on all values that an input can have."""
    graphs = []
    for name, profile in PROFILES.items():
        after = run_passes(graph.replace(name=f"m_{name}"), profile)
        (host,) = compile_all([after], profile)
        for shift in range(3):
            inputs = [
                np.resize(np.roll(EVERY, 61 * shift), graph.tensors[i].shape) for i in graph.inputs
            ]
            wanted = run_outputs(graph, inputs, profile)
            for a, b, c in zip(
                wanted, run_outputs(after, inputs, profile), host.run(inputs), strict=True
            ):
                np.testing.assert_array_equal(a, b)
                np.testing.assert_array_equal(a, c)
        graphs.append(after)
    return graphs[0]


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def test_chains_become_one_table() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input(4, 8, 8)
    x = unary(net, "QUANTIZE", x, Quantization((0.031,), (7,)))
    x = unary(net, "LOGISTIC", x, SHARE)
    x = unary(net, "QUANTIZE", x, Quantization((0.01,), (-100,)))
    net.output(unary(net, "LOGISTIC", x, SHARE))
    assert ops(check(net.graph())) == ["QUANTIZE"]


def test_a_value_that_others_need_stays() -> None:
    net = Net(np.random.default_rng(0))
    x = unary(net, "LOGISTIC", net.input(4, 8, 8), SHARE)
    net.output(unary(net, "QUANTIZE", x, Quantization((0.01,), (-100,))))
    net.output(x)
    y = unary(net, "LOGISTIC", net.input(4, 8, 8), SHARE)
    net.output(unary(net, "QUANTIZE", y, Quantization((0.01,), (-100,))))
    net.output(net.conv(y, 3))
    assert len(check(net.graph()).nodes) == 5


def test_branches_fold_where_all_are_tables() -> None:
    net = Net(np.random.default_rng(0))
    x = unary(net, "LOGISTIC", net.input(4, 8, 8), SHARE)
    net.output(unary(net, "QUANTIZE", x, Quantization((0.01,), (-100,))))
    net.output(unary(net, "LOGISTIC", x, SHARE))
    assert len(check(net.graph()).nodes) == 2


def test_a_table_that_changes_nothing_is_a_view() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input(4, 8, 8)
    net.output(unary(net, "QUANTIZE", x, net.tensors[x].quantization))
    assert ops(check(net.graph())) == ["RESHAPE"]


@pytest.mark.parametrize("layer", ["conv", "depthwise", "plus"])
@pytest.mark.parametrize("before", ["NONE", "RELU"])
@pytest.mark.parametrize("low", [-128, 3])
def test_clamps_go_into_the_layer_before(layer: str, before: str, low: int) -> None:
    net = Net(np.random.default_rng(0))
    x = net.input(5, 6, 4)
    if layer == "plus":
        y = net._finish(
            "ADD", [x, net.input(5, 6, 4)], replace(_added(net, x), activation=before), 1, 3
        )
    else:
        y = getattr(net, layer)(*([x, 4] if layer == "conv" else [x]), activation=before, zero=3)
    q = Quantization((0.05,), (3,))
    net.tensors[y] = replace(net.tensors[y], quantization=q)
    net.output(clamp(net, y, low, 123))  # 6 / 0.05 + 3
    after = check(net.graph())
    if low == 3 or before == "RELU":
        assert len(after.nodes) == 1
        activation = after.nodes[0].attributes.activation
        assert activation == "RELU6"
    else:
        assert len(after.nodes) == 2  # no fused activation clamps on one side alone


def _added(net: Net, x: int) -> object:
    net.plus(x, x)
    attributes = net.nodes[-1].attributes
    net.nodes.pop()
    return attributes


def test_clamps_that_others_see_past_stay() -> None:
    net = Net(np.random.default_rng(0))
    y = net.conv(net.input(5, 6, 4), 4, zero=3)
    net.output(clamp(net, y, 3, 127))
    net.output(y)
    assert len(check(net.graph()).nodes) == 2


@pytest.mark.parametrize("seed", range(12))
def test_random_chains(seed: int) -> None:
    random = np.random.default_rng(seed)
    net = Net(random)
    known = [net.input(4, 8, 8)]
    for _ in range(int(random.integers(2, 9))):
        x = known[int(random.integers(max(0, len(known) - 2), len(known)))]
        kind = random.choice(["quantize", "logistic", "clamp", "conv", "same"])
        if kind == "quantize":
            scale = float(np.float32(2.0 ** random.uniform(-6, -2)))
            out = unary(net, "QUANTIZE", x, Quantization((scale,), (int(random.integers(-9, 9)),)))
        elif kind == "logistic":
            out = unary(net, "LOGISTIC", x, SHARE)
        elif kind == "clamp":
            zero = net.tensors[x].zero_point
            out = clamp(net, x, int(random.choice([-128, zero])), 127)
        elif kind == "same":
            out = unary(net, "QUANTIZE", x, net.tensors[x].quantization)
        else:
            out = net.conv(x, 8, activation=str(random.choice(["NONE", "RELU", "RELU6"])))
        known.append(out)
    for x in {known[-1], known[int(random.integers(1, len(known)))]}:
        net.output(x)
    before = net.graph()
    assert len(check(before).nodes) <= len(before.nodes)


def test_float_between_integers_becomes_a_table() -> None:
    """A DEQUANTIZE that one QUANTIZE reads, and one that the outside sees as well."""
    random = np.random.default_rng(0)
    for seen in (False, True):
        for _ in range(8):
            b = Builder()
            scale, other = (float(np.float32(2.0**e)) for e in random.uniform(-6, 2, 2))
            x = b.tensor((4, 64), scale=scale, zero=int(random.integers(-128, 128)))
            real = b.tensor((4, 64), "float32", None)
            y = b.tensor((4, 64), scale=other, zero=int(random.integers(-128, 128)))
            b.operator("DEQUANTIZE", [x], real)
            b.operator("QUANTIZE", [real], y)
            content = b.build([x], [y, real] if seen else [y])
            graph = run_passes(read_bytes(content, "pair"), LITERT)
            assert ops(graph) == ["QUANTIZE"]
            given = EVERY.reshape(4, 64)
            wanted = LiteRt(content).run([given])[0]
            np.testing.assert_array_equal(run_outputs(graph, [given], LITERT)[0], wanted)
            check(graph)


def constant(net: Net, value: float, scale: float) -> int:
    """Append a constant of one number."""
    index = net.activation((1,), scale, 0)
    data = np.array([round(value / scale)], np.int8)
    data.flags.writeable = False
    net.tensors[index] = replace(net.tensors[index], data=data)
    return index


def binary(net: Net, op: str, a: int, b: int, scale: float, zero: int, act: str = "NONE") -> int:
    attributes = Fused(act)
    out = net._finish(op, [a, b], attributes, 1, zero)
    net.tensors[out] = replace(net.tensors[out], quantization=Quantization((scale,), (zero,)))
    return out


def silu(net: Net, x: int) -> int:
    return binary(net, "MUL", x, unary(net, "LOGISTIC", x, SHARE), 0.04, -100)


def hard_swish(net: Net, x: int) -> int:
    inner = binary(net, "ADD", x, constant(net, 3, 0.03), 0.05, -128, "RELU6")
    product = binary(net, "MUL", inner, x, 0.2, -60)
    return binary(net, "MUL", product, constant(net, 1 / 6, 1 / 600), 0.04, -100)


def hard_swish_of_nodes(net: Net, x: int) -> int:
    inner = binary(net, "ADD", constant(net, 3, 0.03), x, 0.08, 3)
    inner = unary(net, "RELU6", inner, Quantization((6 / 255,), (-128,)))
    return binary(net, "MUL", x, inner, 0.3, -60)


def gelu_by_logistic(net: Net, x: int) -> int:
    """x * logistic(1.702 x) through constants in either place, and a detour that cancels."""
    inner = binary(net, "MUL", constant(net, 1.702, 0.02), x, 0.09, 4)
    y = binary(net, "MUL", x, unary(net, "LOGISTIC", inner, SHARE), 0.05, -90)
    return binary(net, "SUB", binary(net, "ADD", y, y, 0.1, 1), y, 0.05, -90)


@pytest.mark.parametrize("function", [silu, hard_swish, hard_swish_of_nodes, gelu_by_logistic])
def test_functions_written_as_several_nodes_become_one_table(function: Any) -> None:
    net = Net(np.random.default_rng(0))
    net.output(function(net, net.conv(net.input(5, 6, 4), 3, zero=4)))
    after = check(net.graph())
    assert ops(after) == ["CONV_2D", "QUANTIZE"]
    net = Net(np.random.default_rng(0))
    net.output(function(net, net.input(4, 8, 8)))
    assert ops(check(net.graph())) == ["QUANTIZE"]


def test_functions_of_two_values_stay() -> None:
    net = Net(np.random.default_rng(0))
    a, b = net.input(4, 8, 8), net.input(4, 8, 8)
    net.output(binary(net, "MUL", a, unary(net, "LOGISTIC", b, SHARE), 0.04, -100))
    assert ops(check(net.graph())) == ["LOGISTIC", "MUL"]


def test_constants_that_differ_from_place_to_place_stay() -> None:
    net = Net(np.random.default_rng(0))
    index = constant(net, 3, 0.03)
    data = np.array([3, 4, 5, 6], np.int8)
    data.flags.writeable = False
    net.tensors[index] = replace(net.tensors[index], shape=(4,), data=data)
    y = binary(net, "MUL", net.input(5, 6, 4), index, 0.04, -100)
    net.output(unary(net, "QUANTIZE", y, Quantization((0.1,), (3,))))
    assert ops(check(net.graph())) == ["MUL", "QUANTIZE"]


def test_a_function_joins_though_others_read_a_part() -> None:
    """The product reads one tensor instead of two; its logistic factor is needed all the same."""
    net = Net(np.random.default_rng(0))
    x = net.input(4, 8, 8)
    gate = unary(net, "LOGISTIC", x, SHARE)
    net.output(net.conv(gate, 3))
    net.output(binary(net, "MUL", x, gate, 0.04, -100))
    after = check(net.graph())
    assert sorted(ops(after)) == ["CONV_2D", "LOGISTIC", "QUANTIZE"]


def test_nothing_lives_longer_for_a_table() -> None:
    """Both factors are read later, so that a table of their source would add a tensor."""
    net = Net(np.random.default_rng(0))
    x = net.conv(net.input(4, 8, 8), 8, zero=3)
    a, b = (unary(net, op, x, SHARE) for op in ("LOGISTIC", "RELU"))
    net.output(binary(net, "MUL", a, b, 0.04, -100))
    net.output(net.conv(a, 3))
    net.output(net.conv(b, 3))
    assert "MUL" in ops(check(net.graph()))


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 2, 3)])
@pytest.mark.parametrize("axes", [[(3,), (2,)], [(2, 3)], [(1,)], [(2,), (1,)]])
def test_means_of_transposed_tensors(order: tuple[int, ...], axes: list[tuple[int, ...]]) -> None:
    net = Net(np.random.default_rng(0))
    x = net.input(3, 4, 8)
    y = net._finish("TRANSPOSE", [x], TransposeAttributes(order), 1, 0)
    net.tensors[y] = replace(net.tensors[y], quantization=net.tensors[x].quantization)
    for own in axes:
        y = net._finish("MEAN", [y], MeanAttributes(own, False), 1, 3)
        net.tensors[y] = replace(net.tensors[y], quantization=Quantization((0.03,), (3,)))
    net.output(y)
    after = check(net.graph())
    moved = [n for n in after.nodes if n.op == "TRANSPOSE"]
    assert all(after.tensors[n.outputs[0]].elements < 96 for n in moved)
