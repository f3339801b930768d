"""Weights of 2 and 4 bits: packed in flash, computed bit for bit as LiteRT and the reference do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builder import Builder
from hostlib import check_sanitized, compile_all
from kernel_lab import Net
from numpy.random import Generator, default_rng

from tinydeploy.codegen import Provenance, generate
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops._weights import pack, storage_bytes, unpack, weight_bits
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.select import Core, select
from tinydeploy.verify.litert import LiteRt

LITERT = PROFILES["litert"]
WINDOW = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(-2, 1, 2), (-1, 1, 2), (0, 0, 2), (-3, 1, 4), (-2, 2, 4), (-8, 7, 4), (-9, 0, 8), (0, 8, 8)],
)
def test_bits_are_the_fewest_that_hold_all(low: int, high: int, bits: int) -> None:
    assert weight_bits(np.array([low, 0, high])) == bits


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 64])
def test_packing_is_undone_by_unpacking(bits: int, count: int) -> None:
    values = default_rng(count).integers(-(1 << bits - 1), 1 << bits - 1, count)
    packed = pack(values, bits)
    assert packed.size == storage_bytes(count, bits)
    np.testing.assert_array_equal(unpack(packed, count, bits), values)


def test_the_first_field_is_the_lowest() -> None:
    assert pack(np.array([1, -1, 7]), 4).tolist() == [0xF1, 0x07]
    assert pack(np.array([1, -1, -2, 0, 1]), 2).tolist() == [0b00101101, 1]
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([8]), 4)


def convolutions(net: Net, r: Generator) -> None:
    for k in range(6):
        groups = (1, 1, 1, 2, 3, 1)[k]
        kernel = (int(r.integers(1, 4)), int(r.integers(1, 5)))
        x = net.input(int(r.integers(1, 8)), int(r.integers(1, 9)), groups * int(r.integers(1, 8)))
        net.output(net.conv(
            x, groups * int(r.integers(1, 6)), kernel, int(r.integers(1, 4)),
            int(r.choice([1, 1, 2, 3])), "SAME", str(r.choice(["NONE", "RELU6"])), groups,
        ))  # fmt: skip
    net.output(net.conv(net.input(3, 5, 257), 3))


def depthwise(net: Net, r: Generator) -> None:
    for k in range(6):
        x = net.input(int(r.integers(1, 8)), int(r.integers(1, 9)), int(r.integers(1, 9)))
        net.output(net.depthwise(
            x, (int(r.integers(1, 4)), int(r.integers(1, 5))), int(r.integers(1, 4)),
            1 + k % 2, multiplier=(1, 1, 1, 2, 3, 5)[k],
        ))  # fmt: skip


def dense(net: Net, r: Generator) -> None:
    for inputs, units in ((1, 1), (2, 3), (7, 4), (64, 5), (257, 2)):
        net.output(net.dense(net.input(inputs), units, str(r.choice(["NONE", "RELU"]))))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("fill", [convolutions, depthwise, dense])
def test_host(fill: Any, bits: int, capfd: Any) -> None:
    """C on the host, undefined behaviour trapped, equals the reference."""
    graphs = []
    for seed in range(3):
        r = default_rng(seed)
        net = Net(r, f"{fill.__name__}{bits}_{seed}", bits)
        fill(net, r)
        graphs.append(net.graph())
    check_sanitized(graphs, "packed", default_rng(3), capfd)


def int4_model(r: Generator, op: str) -> bytes:
    """Return a model of one operator with int4 weights."""
    b = Builder()
    shape, source, target, axis = {
        "CONV_2D": ((5, 3, 3, 3), (1, 5, 4, 3), (1, 5, 4, 5), 0),
        "DEPTHWISE_CONV_2D": ((1, 3, 3, 6), (1, 5, 4, 3), (1, 5, 4, 6), 3),
        "FULLY_CONNECTED": ((5, 12), (1, 12), (1, 5), 0),
    }[op]
    x = b.tensor(source, scale=0.05, zero=7)
    channels = shape[axis]
    count = 1 if op == "FULLY_CONNECTED" else channels
    data = r.integers(-8, 8, shape)
    w = b.tensor(shape, "int4", [0.1] * count, [0] * count, axis=axis, data=data)
    bias = b.constant(r.integers(-500, 500, channels), "int32", 0.005)
    y = b.tensor(target, scale=0.4, zero=-3)
    options: dict[str, int] = {}
    if op != "FULLY_CONNECTED":
        options = dict(WINDOW)
    if op == "DEPTHWISE_CONV_2D":
        options["DepthMultiplier"] = 2
    b.operator(op, [x, w, bias], y, **options)
    return b.build([x], [y])


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("seed", range(3))
def test_generated_c_equals_litert(op: str, seed: int) -> None:
    r = default_rng(seed)
    content = int4_model(r, op)
    graph = run_passes(read_bytes(content, f"int4_{op.lower()}_{seed}"), LITERT)
    litert = LiteRt(content)
    (host,) = compile_all([graph], LITERT)
    for _ in range(3):
        image = r.integers(-128, 128, graph.tensors[graph.inputs[0]].shape).astype(np.int8)
        np.testing.assert_array_equal(host.run([image])[0], litert.run([image])[0])


def const_bytes(graph: Graph, core: Core) -> int:
    plan = plan_layers(graph, "greedy", select(graph, LITERT, core), LITERT)
    return generate(graph, plan, LITERT, Provenance("m", "", "", "")).const_bytes


@pytest.mark.parametrize("isa", ["", "armv6-m", "armv7-m", "armv7e-m", "armv8.1-m-mve", "rv32imac"])
@pytest.mark.parametrize("optimize", ["balanced", "size"])
def test_weights_take_their_packed_size_in_flash(isa: str, optimize: str) -> None:
    sizes = {}
    for bits in (8, 4, 2):
        net = Net(default_rng(0), "sizes", bits)
        x = net.conv(net.input(8, 8, 64), 64)
        x = net.conv(net.depthwise(x), 64, (3, 3))
        net.output(net.dense(x, 16))
        weights = 64 * 64 + 9 * 64 + 9 * 64 * 64 + 64 * 64 * 16
        sizes[bits] = const_bytes(net.graph(), Core(isa, frozenset({"dsp"}), optimize))
        tables = 40 * (64 + 64 + 64 + 16)
        if bits < 8:
            assert weights * bits // 8 <= sizes[bits] < weights * bits // 8 + tables
    assert sizes[4] < 0.56 * sizes[8]
    assert sizes[2] < 0.6 * sizes[4]


def test_little_is_not_packed_where_size_counts() -> None:
    """Two hundred weights save less than the code that unpacks them takes."""
    net = Net(default_rng(0), bits=4)
    net.output(net.dense(net.input(20), 10))
    graph = net.graph()
    functions = {
        optimize: [
            k.function for k in select(graph, LITERT, Core("", frozenset(), optimize)).kernels if k
        ]
        for optimize in ("balanced", "size")
    }
    assert functions == {"balanced": ["td_fully_connected_packed"], "size": ["td_fully_connected"]}
