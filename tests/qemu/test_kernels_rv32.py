"""Prove the RV32 kernels against the integer reference on the emulator, over shapes and numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest

from tinydeploy.ir import DType, Graph, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, Site
from tinydeploy.ops._rv32 import pack
from tinydeploy.ops._rv32.add import line
from tinydeploy.ops.base import Pace
from tinydeploy.pipeline import core_of
from tinydeploy.plan.items import Cut
from tinydeploy.plan.planner import materialise
from tinydeploy.plan.rows import PACES, paced
from tinydeploy.plan.select import select
from tinydeploy.plan.stream import Scheduler
from tinydeploy.targets import load_target

sys.path.insert(0, str(Path(__file__).parents[1]))
from kernel_lab import Net, run_on, run_plan

MODES = ("speed", "balanced")
ROWS = {("speed", "wide"), ("balanced", "even"), ("balanced", "tight")}  # others with --slow
TARGET = "riscv-virt"


def exact(
    graph: Graph, optimize: str, *functions: str, profile: str = "litert", target: str = TARGET
) -> None:
    """Run on the emulator; every output must equal the reference's, and `functions` be used."""
    verdict, _, _ = run_on(
        load_target(target), graph, optimize, profile, samples=2, functions=functions
    )
    assert verdict.bit_exact, verdict.first_mismatch


def exact_by_rows(
    graph: Graph, optimize: str, *functions: str, machine: str = TARGET, pace: Pace = "even"
) -> None:
    """The same with every node streamed that can be, in segments as long as possible."""
    target, litert = load_target(machine), PROFILES["litert"]
    selection = select(graph, litert, core_of(target, optimize))
    each = paced(graph, litert, selection)
    rows = each[pace]
    used = {k.function for k in rows.kernels if k}
    assert used.issuperset(functions), f"wanted {functions}, chosen {sorted(used)}"
    scheduler = Scheduler(graph, each)
    cuts: list[Cut] = []
    for able, run in groupby(range(len(graph.nodes)), lambda p: rows.kernels[p] is not None):
        nodes = tuple(run)
        if able:
            cuts.append((nodes, scheduler.stream(nodes, (), (pace,) * len(nodes))))
        else:
            cuts += [((p,), None) for p in nodes]
    plan = materialise(graph, litert, selection, scheduler, cuts, "greedy", effort=0)
    verdict, _ = run_plan(target, graph, plan, litert, samples=2)
    assert verdict.bit_exact, verdict.first_mismatch


def set_weights(net: Net, node: int, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace a node's weights by change(weights)."""
    index = net.nodes[node].inputs[1]
    tensor = net.tensors[index]
    data = change(np.array(tensor.data)).astype(np.int8)
    net.tensors[index] = replace(tensor, data=constant(data))


def set_bias(net: Net, node: int, values: np.ndarray) -> None:
    index = net.nodes[node].inputs[2]
    data = constant(values.astype(np.int32))
    net.tensors[index] = replace(net.tensors[index], data=data)


def set_weight_scales(net: Net, node: int, factor: np.ndarray) -> None:
    index = net.nodes[node].inputs[1]
    q = net.tensors[index].quantization
    assert q is not None
    scales = tuple(float(np.float32(s * f)) for s, f in zip(q.scales, factor, strict=True))
    net.tensors[index] = replace(net.tensors[index], quantization=replace(q, scales=scales))


@pytest.mark.parametrize("optimize", MODES)
def test_convolutions(optimize: str) -> None:
    net = Net(np.random.default_rng(1))
    cases = [
        # height, width, channels, filters, kernel, stride, padding, activation
        (5, 7, 1, 1, (1, 1), 1, "SAME", "NONE"),
        (3, 3, 17, 5, (1, 1), 1, "SAME", "RELU"),
        (5, 7, 6, 6, (1, 1), 1, "SAME", "NONE"),
        (2, 5, 3, 4, (1, 1), 1, "SAME", "NONE"),
        (4, 5, 3, 6, (3, 3), 1, "SAME", "NONE"),
        (5, 4, 2, 5, (3, 3), 1, "SAME", "NONE"),
        (1, 1, 33, 6, (1, 1), 1, "SAME", "NONE"),
        (1, 2, 257, 3, (1, 1), 1, "SAME", "RELU6"),
        (4, 4, 40, 19, (1, 1), 2, "SAME", "NONE"),
        (5, 5, 3, 8, (3, 3), 2, "SAME", "RELU6"),
        (6, 4, 5, 9, (3, 3), 1, "SAME", "NONE"),
        (9, 5, 1, 7, (5, 2), 2, "VALID", "NONE"),
        (7, 8, 2, 4, (2, 5), 3, "SAME", "RELU"),
        (2, 2, 19, 3, (3, 3), 1, "SAME", "RELU_N1_TO_1"),
    ]
    for height, width, channels, filters, kernel, stride, padding, activation in cases:
        x = net.input(height, width, channels)
        net.output(net.conv(x, filters, kernel, stride, 1, padding, activation))
    x = net.input(7, 3, 4)
    net.output(net.conv(x, 5, (3, 1), dilation=2))
    exact(net.graph(), optimize, "td_conv_2d_rv32")
    kernels = select(net.graph(), PROFILES["litert"], core_of(load_target(TARGET), optimize))
    used = {k.function for k in kernels.kernels if k}
    assert used <= {"td_conv_2d_rv32", "td_conv_2d_packed"}  # one weight may be of few bits


@pytest.mark.parametrize("optimize", MODES)
def test_depthwise(optimize: str) -> None:
    net = Net(np.random.default_rng(2))
    cases = [
        # height, width, channels, kernel, stride, dilation, padding, activation, multiplier
        (5, 6, 3, (3, 3), 1, 1, "SAME", "NONE", 1),
        (4, 7, 2, (3, 3), 1, 1, "SAME", "RELU", 1),
        (1, 1, 4, (3, 3), 1, 1, "SAME", "NONE", 1),
        (1, 5, 3, (3, 3), 2, 1, "SAME", "RELU6", 1),
        (8, 9, 2, (3, 3), 2, 1, "SAME", "NONE", 1),
        (9, 8, 2, (3, 3), 2, 1, "VALID", "NONE", 2),
        (7, 6, 2, (3, 3), 1, 1, "VALID", "NONE", 3),
        (7, 7, 2, (3, 3), 1, 2, "SAME", "NONE", 1),
        (9, 10, 3, (5, 5), 1, 1, "SAME", "RELU", 1),
        (11, 13, 2, (7, 7), 2, 1, "SAME", "NONE", 1),
        (7, 11, 2, (2, 4), 3, 1, "SAME", "NONE", 1),
        (13, 1, 3, (5, 1), 1, 1, "VALID", "NONE", 1),
        (19, 1, 2, (10, 1), 2, 1, "SAME", "NONE", 1),
        (1, 3, 33, (1, 1), 1, 1, "SAME", "NONE", 1),
        (9, 1, 3, (3, 3), 1, 1, "SAME", "NONE", 1),
        (9, 1, 2, (4, 5), 1, 2, "SAME", "RELU", 2),
    ]
    for height, width, channels, kernel, stride, dilation, padding, activation, times in cases:
        x = net.input(height, width, channels)
        y = net.depthwise(x, kernel, stride, dilation, padding, activation, times)
        net.output(y)
    pads = net.depthwise(net.input(6, 5, 2), (3, 3), 2, pads=(0, 1, 2, 0))
    net.output(pads)
    graph = net.graph()
    three = "td_depthwise_3x3_rv32" if optimize == "speed" else "td_depthwise_3x3_rows_rv32"
    exact(graph, optimize, three, "td_depthwise_rv32")
    chosen = select(graph, PROFILES["litert"], core_of(load_target(TARGET), optimize))
    assert all(k and ("rv32" in k.function or "packed" in k.function) for k in chosen.kernels)


@pytest.mark.parametrize(
    ("optimize", "pace"),
    [
        pytest.param(o, p, marks=[] if (o, p) in ROWS else [pytest.mark.slow])
        for o in MODES
        for p in PACES
    ],
)
def test_rows_anywhere(optimize: str, pace: Pace) -> None:
    """Chains whose rows lie anywhere, wrap, and are missing at the border."""
    net = Net(np.random.default_rng(10))
    for height, width, channels, filters, kernel, stride, padding in (
        (9, 12, 3, 8, (3, 3), 1, "SAME"),
        (9, 11, 5, 7, (3, 3), 2, "SAME"),
        (12, 8, 2, 3, (5, 4), 1, "SAME"),
        (11, 4, 6, 4, (3, 5), 1, "SAME"),
        (8, 9, 4, 6, (2, 2), 2, "VALID"),
        (10, 1, 9, 5, (3, 1), 1, "SAME"),
        (19, 1, 5, 6, (10, 1), 2, "VALID"),
        (6, 7, 2, 3, (1, 4), 1, "VALID"),
        (7, 2, 9, 2, (1, 1), 1, "SAME"),
        (9, 3, 4, 5, (1, 1), 2, "SAME"),
        (13, 6, 1, 18, (7, 4), 2, "SAME"),
        (8, 5, 1, 13, (3, 4), 1, "VALID"),
        (10, 1, 6, 16, (5, 1), 2, "SAME"),
    ):
        x = net.conv(net.input(height, width, channels), channels + 1)
        y = net.conv(x, filters, kernel, stride, padding=padding)
        net.output(net.conv(y, 5, zero=-128))
        z = net.depthwise(net.conv(x, channels), kernel, stride, padding=padding)
        net.output(net.conv(net.depthwise(z, (3, 3), activation="RELU"), 3))
    x = net.conv(net.input(9, 10, 3), 4)
    y = net.depthwise(x, (3, 3), dilation=2, multiplier=2)
    net.output(net.conv(net.depthwise(y, (3, 3), 2, pads=(0, 1, 2, 0)), 8))
    net.output(net.plus(x, net.conv(net.depthwise(x, (7, 7)), 4, (3, 1), dilation=2)))
    for width, stride, padding in product((1, 2, 3, 4, 5, 6, 8), (1, 2), ("SAME", "VALID")):
        if width > 2 or padding == "SAME":
            x = net.conv(net.input(5, width, 2), 3)
            net.output(net.conv(net.depthwise(x, (3, 3), stride, padding=padding), 4))
    convolution = f"td_conv_2d_{'rows' if optimize == 'speed' else 'widened'}_rv32"
    exact_by_rows(
        net.graph(), optimize, convolution, "td_conv_2d_rows_rv32", "td_depthwise_rows_rv32",
        "td_depthwise_3x3_rows_rv32", "td_depthwise_column_rv32", "td_add_rv32", pace=pace,
    )  # fmt: skip


@pytest.mark.parametrize("optimize", MODES)
@pytest.mark.parametrize("profile", ["litert", "tflm"])
def test_dense_rounds_as_the_profile_says(optimize: str, profile: str) -> None:
    net = Net(np.random.default_rng(3))
    for depth, units in ((1, 1), (5, 12), (17, 13), (64, 25), (200, 4)):
        net.output(net.dense(net.input(depth), units, zero=3))
        net.output(net.dense(net.input(depth), units, "RELU"))
    exact(net.graph(), optimize, "td_fully_connected_rv32", profile=profile)


@pytest.mark.parametrize("optimize", MODES)
def test_extreme_numbers(optimize: str) -> None:
    """Weights of -128 and of one sign, large biases, dead channels, multipliers at the limits."""
    random = np.random.default_rng(4)
    net = Net(random)
    changes = (
        lambda w: np.full_like(w, -128),
        lambda w: np.full_like(w, 127),
        lambda w: np.where(random.random(w.shape) < 0.5, -128, 127),
        lambda w: w // 32,
        lambda w: np.zeros_like(w),
    )
    for change in changes:
        for zero in (-128, 127):
            net.output(net.conv(net.input(2, 3, 37, zero=zero), 8))
            set_weights(net, len(net.nodes) - 1, change)
            net.output(net.dense(net.input(50, zero=zero), 26))
            set_weights(net, len(net.nodes) - 1, change)
            net.output(net.depthwise(net.input(4, 3, 8, zero=zero)))
            set_weights(net, len(net.nodes) - 1, change)
    for zero in (-128, 4):
        # biases near the bound of the sum, scaled so that the outputs spread
        net.output(net.conv(net.input(2, 2, 9), 16, zero=zero))
        last = len(net.nodes) - 1
        set_bias(net, last, random.integers(-(2**28), 2**28, 16))
        set_weight_scales(net, last, np.full(16, 2.0**-16))
        # a dead channel of a large bias beside living ones
        net.output(net.conv(net.input(2, 2, 9), 4, zero=zero))
        last = len(net.nodes) - 1
        set_bias(net, last, np.array([-(2**30), 500, 2**30, -700]))
        set_weights(net, last, lambda w: w * np.array([0, 1, 0, 1])[:, None, None, None])
        set_weight_scales(net, last, np.array([2.0**-22, 1, 2.0**-22, 1]))
    exact(net.graph(), optimize, "td_conv_2d_rv32", "td_fully_connected_rv32")


@pytest.mark.parametrize("optimize", MODES)
def test_chain_with_a_residual(optimize: str) -> None:
    net = Net(np.random.default_rng(5))
    x = net.input(9, 7, 5)
    a = net.conv(x, 11, zero=-128)
    b = net.depthwise(a, (3, 3))
    c = net.conv(b, 11)
    d = net.plus(a, c)
    e = net.conv(net.depthwise(d, (5, 5), 2), 6, (3, 3), activation="RELU6")
    net.output(net.dense(e, 7))
    net.output(net.plus(net.input(3, 5, 7), net.input(3, 5, 7)))
    exact(net.graph(), optimize, "td_conv_2d_rv32", "td_add_rv32")


@pytest.mark.parametrize("optimize", MODES)
def test_shorter_code_with_zba_and_zbb(optimize: str) -> None:
    net = Net(np.random.default_rng(11))
    for activation in ("NONE", "RELU"):
        x = net.conv(net.input(6, 7, 5), 6, activation=activation)
        y = net.conv(net.depthwise(x, (3, 3), activation=activation), 5, (3, 3))
        net.output(net.depthwise(y, (5, 5), activation=activation))
        z = net.depthwise(net.conv(net.input(9, 1, 3), 4), (4, 1), activation=activation)
        net.output(net.conv(z, 5, activation=activation))
    exact(net.graph(), optimize, "td_conv_2d_rv32", "td_depthwise_rv32", target="riscv-virt-zb")
    rows = ("td_conv_2d_rows_rv32", "td_depthwise_rows_rv32", "td_depthwise_column_rv32")
    exact_by_rows(net.graph(), optimize, *rows, machine="riscv-virt-zb")


@pytest.mark.parametrize("optimize", MODES)
def test_large_multipliers_fall_back(optimize: str) -> None:
    """A left shift is not for these kernels, and must still be computed."""
    net = Net(np.random.default_rng(6))
    net.output(net.conv(net.input(2, 2, 3), 4))
    set_weight_scales(net, 0, np.full(4, 4096.0))
    chosen = select(net.graph(), PROFILES["litert"], core_of(load_target(TARGET), optimize))
    assert [k.function for k in chosen.kernels if k] == ["td_conv_2d"]
    exact(net.graph(), optimize, "td_conv_2d")


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("zero, low", [(-128, -128), (5, 5), (5, -128), (127, -128)])
def test_scaling_equals_requantize(single: bool, zero: int, low: int) -> None:
    """The one-multiplication form, over whole ranges of sums around every threshold."""
    random = np.random.default_rng(7)
    for _ in range(200):
        m = int(random.integers(2**30, 2**31))
        e = int(random.integers(1, pack.MAX_RIGHT_SHIFT + 1))
        reach = min(2**29 - 1, 300 * 2**e)
        scale = pack.scaling(
            np.array([m]), np.array([-e]), np.array([-reach]), np.array([reach]),
            zero, (low, 127), single,
        )  # fmt: skip
        assert scale is not None
        near = (np.arange(-300, 301) - 0.5) * 2.0**31 / m * 2**e
        acc = np.concatenate([np.floor(near).astype(np.int64) + d for d in range(-3, 4)])
        acc = np.concatenate([acc, random.integers(-reach, reach, 2000), [0, 1, -1]])
        acc = acc[np.abs(acc) < reach]
        exact_out = np.clip(requantize(acc, m, -e, single=single) + zero, low, 127)
        high = (4 * acc * int(scale.multiplier[0])) >> 32
        high = high + int(scale.addend[0]) - (2 * (acc < 0) if scale.signed else 0)
        assert np.array_equal(np.clip(high >> int(scale.shift[0]), low, 127), exact_out)


def test_chunks_never_leave_the_low_field() -> None:
    """Worst-case inputs for each chunk stay within int16, and a longer chunk would not."""
    random = np.random.default_rng(8)
    w = np.clip(random.normal(0, 50, (4, 300)).round(), -128, 127).astype(np.int8)
    lengths = pack.chunks(w, [100, 200])
    assert sum(lengths) == 300 and max(lengths) <= pack.MAX_CHUNK
    k = 0
    for n in lengths:
        low, high = pack.bounds(w[:, k : k + n], np.zeros(4))
        assert low.min() >= -32768 and high.max() <= 32767
        if n < pack.MAX_CHUNK and k + n not in (100, 300):
            low, high = pack.bounds(w[:, k : k + n + 1], np.zeros(4))
            assert low.min() < -32768 or high.max() > 32767
        k += n


def test_sums_have_a_proven_line() -> None:
    """Nearly all pairs of scales have one, compared here again for all pairs of bytes."""
    random = np.random.default_rng(9)
    found = 0
    for _ in range(40):
        net = Net(random)
        net.plus(net.input(1, 1, 1), net.input(1, 1, 1))
        for k, scale in enumerate(random.uniform(0.01, 0.2, 3)):
            q = Quantization((float(np.float32(scale)),), (int(random.integers(-128, 128)),))
            net.tensors[k] = replace(net.tensors[k], quantization=q)
        graph = net.graph()
        formula = line(Site(Call(graph, graph.nodes[0]), PROFILES["litert"], "rv32imac"))
        if formula is None:
            continue
        found += 1
        pairs = np.array(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), np.int8)
        big = [Tensor(t.name, (1, 256, 256, 1), DType.INT8, t.quantization) for t in graph.tensors]
        call = Call(replace(graph, tensors=tuple(big)), graph.nodes[0])
        from tinydeploy.ops import op_named

        values = [p.reshape(1, 256, 256, 1) for p in pairs]
        (want,) = op_named("ADD").reference(call, values, PROFILES["litert"])
        a, b = (v.astype(np.int64) for v in values)
        got = (
            a * formula.a_multiplier + b * formula.b_multiplier + formula.addend
        ) >> formula.shift
        assert np.array_equal(np.clip(got, -128, 127), want)
    assert found >= 36


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("optimize", MODES)
def test_random_shapes(optimize: str, seed: int) -> None:
    random = np.random.default_rng(100 + seed)
    net = Net(random)
    for _ in range(12):
        size = random.integers(1, 14, 2).tolist()
        depth, filters = (int(n) for n in random.integers(1, 258, 2) // random.choice([1, 4, 16]))
        kernel = tuple(random.integers(1, 6, 2).tolist())
        options = {
            "stride": int(random.integers(1, 4)),
            "activation": str(random.choice(["NONE", "RELU", "RELU6"])),
        }
        x = net.input(*size, max(1, depth % 64))
        net.output(net.conv(x, max(1, filters), kernel, **options))
        x = net.input(*size, max(1, depth))
        net.output(net.depthwise(x, kernel, **options))
        net.output(net.depthwise(net.input(*size, 3), (3, 3), **options))
        net.output(net.dense(net.input(max(1, depth)), max(1, filters)))
        y = net.conv(net.input(*size, 3), 4)
        y = net.depthwise(net.conv(y, 1 + filters % 9, kernel, **options), kernel)
        net.output(net.conv(net.depthwise(y, (3, 3), int(random.integers(1, 3))), 3))
    exact_by_rows(net.graph(), optimize, "td_conv_2d_rows_rv32", pace=PACES[seed % 3])
    exact(net.graph(), optimize, "td_conv_2d_rv32", "td_depthwise_rv32")
