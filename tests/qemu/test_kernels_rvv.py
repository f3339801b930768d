"""The kernels for RISC-V vectors: seeded sweeps over shapes, paddings, scales and roundings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kernel_lab import Net, run_on

from tinydeploy.ir import Graph, Quantization
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call
from tinydeploy.ops._elementwise import Attributes as AddAttributes
from tinydeploy.ops._pool import Attributes as PoolAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.mean import Attributes as MeanAttributes
from tinydeploy.pipeline import core_of
from tinydeploy.plan.select import select
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu

TARGET = load_target("riscv-virt-rvv")
CHANNELS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 63, 64, 65, 100, 129, 257]
ACTIVATIONS = ["NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1"]
# Factors on the output's scale: shifts to the left, none and to the right mixed, typical, far
# to the right, and so far that every output is the zero point.
FACTORS = [2.0**-9, 1 / 300, 1.0, 1.0, 1.0, 2.0**7, 2.0**21]


def rescale(net: Net, index: int) -> int:
    """Make an output's scale extreme now and then."""
    tensor = net.tensors[index]
    factor = float(net.random.choice(FACTORS))
    net.tensors[index] = replace(
        tensor, quantization=Quantization((tensor.scale * factor,), (tensor.zero_point,))
    )
    return index


def extreme_bias(net: Net) -> None:
    """Replace the bias of the last node by values near the ends of int32."""
    index = net.nodes[-1].inputs[2]
    assert index is not None
    tensor = net.tensors[index]
    ends = net.random.choice([2**31 - 1, -(2**31), 2**30, -(2**30) - 7, 0], tensor.shape)
    net.tensors[index] = replace(tensor, data=constant(ends.astype(np.int32)))


def pick(net: Net, values: list[int], most: int = 10**6) -> int:
    return int(net.random.choice([v for v in values if v <= most]))


def conv(net: Net) -> None:
    kernel = [(1, 1), (1, 1), (3, 3), (2, 2), (1, 5), (4, 1), (5, 3)][net.random.integers(7)]
    stride, dilation = pick(net, [1, 1, 2, 3]), pick(net, [1, 1, 1, 2])
    height, width = net.random.integers(1, 12, 2)
    depth = pick(net, CHANNELS, 40 if kernel != (1, 1) else 257)
    filters = pick(net, CHANNELS, 1000 // depth + 8)
    padding = "SAME"
    if height > kernel[0] * dilation and width > kernel[1] * dilation:
        padding = str(net.random.choice(["SAME", "VALID"]))
    y = net.conv(net.input(int(height), int(width), depth), filters, kernel, stride, dilation,
                 padding, str(net.random.choice(ACTIVATIONS)))  # fmt: skip
    net.output(rescale(net, y))


def wide(net: Net) -> None:
    """Convolutions of wide rows to few channels."""
    kernel = [(3, 3), (3, 3), (1, 1), (2, 4), (5, 5)][net.random.integers(5)]
    stride, dilation = pick(net, [1, 1, 2, 3]), pick(net, [1, 1, 1, 2])
    width = stride * int(net.random.choice([23, 31, 32, 33, 48, 62, 95]))
    y = net.conv(net.input(int(net.random.integers(1, 6)), width, pick(net, [1, 2, 3, 4, 7, 16])),
                 pick(net, CHANNELS, 16), kernel, stride, dilation, "SAME",
                 str(net.random.choice(ACTIVATIONS)))  # fmt: skip
    net.output(rescale(net, y))


def depthwise(net: Net) -> None:
    kernel = [(3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (4, 1), (2, 5)][net.random.integers(7)]
    stride, dilation = pick(net, [1, 1, 2, 3]), pick(net, [1, 1, 1, 2])
    height, width = net.random.integers(1, 14, 2)
    channels = pick(net, CHANNELS)
    if channels > 100:
        height, width = 3, 4
    multiplier = pick(net, CHANNELS, 40) if channels == 1 else 1
    pads = None
    if net.random.random() < 0.3 and dilation == 1:
        extra = net.random.integers(0, 3, 4) + np.array((kernel[0], 0, kernel[1], 0))
        pads = tuple(int(v) for v in extra)
    y = net.depthwise(net.input(int(height), int(width), channels), kernel, stride, dilation,
                      "SAME", str(net.random.choice(ACTIVATIONS)), multiplier,
                      pads=pads)  # fmt: skip
    net.output(rescale(net, y))


def dense(net: Net) -> None:
    y = net.dense(net.input(pick(net, [*CHANNELS, 640])), pick(net, CHANNELS),
                  str(net.random.choice(ACTIVATIONS)))  # fmt: skip
    net.output(rescale(net, y))


def add(net: Net) -> None:
    shape = (*map(int, net.random.integers(1, 7, 2)), pick(net, CHANNELS))
    a, b = net.input(*shape), net.input(*shape)
    ratio = float(net.random.choice([1.0, 0.5, 0.3, 2.0**-12, 3.7]))
    zero = net.tensors[b].zero_point
    net.tensors[b] = replace(net.tensors[b], quantization=Quantization((0.05 * ratio,), (zero,)))
    kind = str(net.random.choice(["ADD", "SUB"]))
    activation = str(net.random.choice(ACTIVATIONS))
    y = net._finish(kind, [a, b], AddAttributes(activation), 1, None)
    # Twice the scale of two equal ones makes halves of all odd sums.
    scale = 0.05 * float(net.random.choice([2.0, 0.01, 1.9, 300.0]) if ratio != 1.0 else 2.0)
    zero = net.tensors[y].zero_point
    net.tensors[y] = replace(net.tensors[y], quantization=Quantization((scale,), (zero,)))
    net.output(y)


def pool(net: Net) -> None:
    x = net.input(*map(int, net.random.integers(1, 13, 2)), pick(net, CHANNELS))
    stride = pick(net, [1, 2, 3])
    kernel_h, kernel_w = (int(v) for v in net.random.integers(1, 16, 2))
    window = Window(stride, stride, 1, 1, "SAME", str(net.random.choice(ACTIVATIONS)))
    y = net._finish("AVERAGE_POOL_2D", [x], PoolAttributes(window, kernel_h, kernel_w), 1, None)
    net.tensors[y] = replace(net.tensors[y], quantization=net.tensors[x].quantization)
    net.output(y)


def mean(net: Net) -> None:
    # Powers of two at the same scale make halves often.
    halves = bool(net.random.integers(2))
    sizes = [2, 4, 8] if halves else list(range(1, 13))
    x = net.input(pick(net, sizes), pick(net, sizes), pick(net, CHANNELS[3:]))
    axes = [(1, 2), (1, 2), (1,), (2,)][net.random.integers(4)]
    y = net._finish("MEAN", [x], MeanAttributes(axes, bool(net.random.integers(2))), 1, None)
    scale = 0.05 * float(net.random.choice([1.0, 0.3, 0.001, 5.0]) if not halves else 1.0)
    zero = 5 if halves else net.tensors[y].zero_point
    net.tensors[y] = replace(net.tensors[y], quantization=Quantization((scale,), (zero,)))
    net.output(y)


KINDS = {
    "conv": (conv, "td_conv_2d_rvv"),
    "wide": (wide, "td_conv_planes_rvv"),
    "depthwise": (depthwise, "td_depthwise_rvv"),
    "dense": (dense, "td_conv_2d_rvv"),
    "add": (add, "td_add_rvv"),
    "pool": (pool, "td_average_pool_2d_rvv"),
    "mean": (mean, "td_mean_rvv"),
}


def sweep(kinds: list[str], seed: int, nodes: int) -> Net:
    net = Net(np.random.default_rng(seed))
    for k in range(nodes):
        kind = kinds[k % len(kinds)]
        KINDS[kind][0](net)
        if kind in ("conv", "wide", "depthwise") and k % 5 == 4:
            extreme_bias(net)
    return net


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["conv", "wide", "depthwise"])
def test_convolutions_are_exact(kind: str, seed: int) -> None:
    graph = sweep([kind], seed, 16).graph()
    verdict, _, _ = run_on(TARGET, graph, functions=[KINDS[kind][1]])
    assert verdict.bit_exact, verdict.first_mismatch


@pytest.mark.parametrize("profile", ["litert", "tflm"])
def test_dense_layers_are_exact_with_one_rounding_and_with_two(profile: str) -> None:
    graph = sweep(["dense"], 1, 14).graph()
    verdict, _, _ = run_on(TARGET, graph, profile=profile, functions=["td_conv_2d_rvv"])
    assert verdict.bit_exact, verdict.first_mismatch


def test_sums_pools_and_means_are_exact() -> None:
    kinds = ["add", "pool", "mean"]
    graph = sweep(kinds, 2, 24).graph()
    verdict, _, _ = run_on(TARGET, graph, functions=[KINDS[k][1] for k in kinds])
    assert verdict.bit_exact, verdict.first_mismatch


def chain() -> Graph:
    net = Net(np.random.default_rng(3))
    x = net.conv(net.input(20, 22, 3), 16, (3, 3), 2, zero=-128)
    left = net.depthwise(net.conv(x, 40), (3, 3), 1, zero=5)
    right = net.depthwise(net.conv(x, 40), (3, 3), 2, zero=0)
    net.output(net.dense(right, 9))
    net.output(net.conv(net.plus(left, net.conv(x, 40)), 33))
    return net.graph()


def test_a_network_is_exact_when_optimised_for_speed() -> None:
    functions = ["td_conv_2d_rvv", "td_depthwise_rvv", "td_add_rvv"]
    verdict, _, _ = run_on(TARGET, chain(), "speed", functions=functions)
    assert verdict.bit_exact, verdict.first_mismatch


@pytest.mark.parametrize("optimize", ["balanced", "speed"])
def test_rows_in_rings_are_exact(optimize: str) -> None:
    """Whatever works by rows does so, behind and before each other and one by one."""
    net = sweep(["conv", "wide", "depthwise", "add", "pool"], 7, 20)
    verdict, _, _ = run_on(TARGET, net.graph(), optimize, streamed=True)
    assert verdict.bit_exact, verdict.first_mismatch
    functions = ["td_conv_2d_rvv", "td_depthwise_rvv", "td_add_rvv"]
    verdict, _, _ = run_on(TARGET, chain(), optimize, functions=functions, streamed=True)
    assert verdict.bit_exact, verdict.first_mismatch


def test_wider_vectors_give_the_same(tmp_path: Path) -> None:
    """No table depends on the length of vectors, as long as they have 128 bits."""
    text = (Path(__file__).parents[2] / "targets" / "riscv-virt-rvv.toml").read_text()
    assert text.count("vlen=128") == 1
    path = tmp_path / "wide.toml"
    path.write_text(text.replace("vlen=128", "vlen=512"))
    net = sweep(["conv", "wide", "depthwise", "dense", "add", "pool", "mean"], 4, 21)
    verdict, _, _ = run_on(load_target(path), net.graph())
    assert verdict.bit_exact, verdict.first_mismatch


def test_size_is_left_to_portable_kernels() -> None:
    selection = select(chain(), PROFILES["litert"], core_of(TARGET, "size"))
    assert not any(k and k.function.endswith("rvv") for k in selection.kernels)


def test_what_the_kernels_cannot_do_is_left_to_others() -> None:
    """Groups, several outputs per channel, and one rounding of sums near the ends of int32."""
    net = Net(np.random.default_rng(5))
    net.output(net.conv(net.input(4, 4, 8), 8, groups=2))
    net.output(net.depthwise(net.input(4, 4, 8), multiplier=2))
    y = net.dense(net.input(8), 5)
    net.output(y)
    extreme_bias(net)
    tensor = net.tensors[y]
    net.tensors[y] = replace(tensor, quantization=Quantization((2.0**-20,), (tensor.zero_point,)))
    verdict, _, selection = run_on(TARGET, net.graph())
    assert verdict.bit_exact, verdict.first_mismatch
    assert not any(k and k.function.endswith("rvv") for k in selection.kernels)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("kind", list(KINDS))
def test_long_sweeps(kind: str, seed: int) -> None:
    graph = sweep([kind], seed, 24).graph()
    profile = ("litert", "tflm")[seed % 2]
    optimize, streamed = ("balanced", "speed")[seed // 2 % 2], seed % 3 == 0
    functions = [KINDS[kind][1]]
    verdict, _, _ = run_on(TARGET, graph, optimize, profile, functions=functions, streamed=streamed)
    assert verdict.bit_exact, verdict.first_mismatch


@pytest.mark.parametrize("optimize", ["balanced", "speed"])
def test_every_convolution_of_a_sweep_uses_vectors(optimize: str) -> None:
    graph = sweep(["conv", "depthwise", "dense", "pool", "mean"], 6, 40).graph()
    core = core_of(TARGET, optimize)
    selection = select(graph, PROFILES["litert"], core)
    for node, kernel in zip(graph.nodes, selection.kernels, strict=True):
        assert kernel is not None
        if not kernel.function.endswith("rvv"):
            assert left_out(Call(graph, node)), node


def left_out(call: Call) -> bool:
    """Say whether a node is one that the kernels refuse for a reason that the sweeps draw."""
    a = call.attributes
    if call.node.op == "AVERAGE_POOL_2D":
        return bool(a.kernel_h * a.kernel_w > 254)
    if call.node.op == "MEAN":  # of single elements
        return all(call.input().shape[axis] == 1 for axis in a.axes)
    if call.node.op == "FULLY_CONNECTED":  # shifts to the left may overflow before one rounding
        return bool(call.output.scale < 0.001)
    return False
