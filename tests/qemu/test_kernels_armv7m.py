"""Prove the Armv7-M kernels bit-exact on the emulator, over shapes and extreme parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from kernel_lab import Net, run_on

from tinydeploy.ir.graph import constant
from tinydeploy.ops import Call
from tinydeploy.ops import _addsub as addsub
from tinydeploy.ops._armv7m.add import addend_of, solve
from tinydeploy.ops._dsp.add import table
from tinydeploy.ops._elementwise import Attributes as AddAttributes
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu

MODES = ("speed", "balanced")


def prove(
    net: Net,
    optimize: str,
    functions: Sequence[str],
    profile: str = "litert",
    target: str = "mps2-an385",
    streamed: bool = False,
) -> None:
    """Run a graph on the target and compare every output; the named kernels must be in use."""
    verdict, _, _ = run_on(
        load_target(target), net.graph(), optimize, profile, samples=3,
        functions=[f"td_{f}" for f in functions], streamed=streamed,
    )  # fmt: skip
    assert verdict.bit_exact, verdict.first_mismatch


def rescaled(net: Net, factor: float) -> None:
    """Multiply the scale of the newest tensor: a small one makes it saturate."""
    q = net.tensors[-1].quantization
    assert q is not None
    scaled = replace(q, scales=(q.scales[0] * factor,))
    net.tensors[-1] = replace(net.tensors[-1], quantization=scaled)


def pointwise(seed: int) -> Net:
    random = np.random.default_rng(seed)
    net = Net(random)
    for channels, filters in ((1, 1), (3, 2), (4, 5), (15, 4), (16, 16), (17, 9), (33, 7), (66, 3)):
        h, w = (int(v) for v in random.integers(1, 7, 2))
        activation = str(random.choice(["NONE", "RELU", "RELU6"]))
        net.output(net.conv(net.input(h, w, channels), filters, activation=activation))
        rescaled(net, float(random.choice([0.3, 1.0, 3.0])))
    net.output(net.conv(net.input(5, 3, 257), 6, zero=127))
    return net


def silent(seed: int) -> Net:
    """Channels whose output never changes have biases of any size."""
    net = Net(np.random.default_rng(seed))
    x = net.input(5, 5, 6)
    net.outputs = [net.conv(x, 8), net.conv(x, 5, (3, 3), activation="RELU6"), net.depthwise(x)]
    for node in net.nodes:
        weights, bias = (net.tensors[i] for i in node.inputs[1:])
        assert weights.quantization is not None and bias.data is not None
        values = np.array(bias.data)
        values[:3] = (1 << 30, -(1 << 30), 1 << 29)
        scales = np.array(weights.quantization.scales)
        scales[:3] *= (2.0**-24, 2.0**-25, 2.0**-40)
        q = replace(weights.quantization, scales=tuple(map(float, np.float32(scales))))
        net.tensors[node.inputs[1]] = replace(weights, quantization=q)
        net.tensors[node.inputs[2]] = replace(bias, data=constant(values))
    return net


def windows(seed: int) -> Net:
    random = np.random.default_rng(seed)
    net = Net(random)
    cases = (
        # height, width, channels, filters, kernel, stride, dilation, padding
        (9, 7, 3, 8, (3, 3), 1, 1, "SAME"),
        (9, 7, 3, 8, (3, 3), 2, 1, "SAME"),
        (8, 8, 4, 3, (3, 3), 2, 1, "SAME"),
        (7, 5, 2, 5, (5, 1), 1, 1, "VALID"),
        (5, 9, 1, 7, (1, 5), 3, 1, "SAME"),
        (10, 11, 1, 4, (7, 4), 2, 1, "SAME"),
        (3, 2, 5, 3, (5, 5), 1, 1, "SAME"),
        (6, 1, 6, 4, (2, 1), 1, 1, "VALID"),
        (5, 5, 17, 2, (2, 2), 1, 1, "SAME"),
        (6, 6, 4, 4, (1, 1), 2, 1, "SAME"),
    )
    for h, w, channels, filters, kernel, stride, dilation, padding in cases:
        activation = str(random.choice(["NONE", "RELU6"]))
        x = net.input(h, w, channels)
        net.output(net.conv(x, filters, kernel, stride, dilation, padding, activation))
    return net


def chains(seed: int) -> Net:
    """Pointwise, depthwise, pointwise: the layouts between them are the kernels' own."""
    random = np.random.default_rng(seed)
    net = Net(random)
    cases = (
        ((5, 5), 6, (3, 3), 1, "SAME"),
        ((4, 3), 1, (3, 3), 1, "SAME"),
        ((7, 8), 3, (3, 3), 2, "SAME"),
        ((8, 7), 5, (3, 3), 2, "SAME"),
        ((9, 10), 4, (5, 5), 1, "SAME"),
        ((9, 11), 2, (5, 5), 2, "SAME"),
        ((8, 9), 3, (7, 7), 2, "SAME"),
        ((11, 7), 2, (7, 7), 1, "SAME"),
        ((7, 9), 3, (3, 3), 3, "VALID"),
        ((6, 6), 5, (2, 4), 1, "VALID"),
        ((3, 1), 4, (3, 1), 1, "SAME"),
        ((2, 2), 9, (3, 3), 1, "SAME"),
        ((4, 14), 2, (5, 5), 1, "SAME"),
        ((5, 13), 2, (7, 7), 1, "SAME"),
        ((5, 24), 2, (3, 3), 2, "SAME"),
        ((6, 23), 2, (5, 5), 2, "SAME"),
    )
    for (h, w), channels, kernel, stride, padding in cases:
        x = net.conv(net.input(h, w, 3), channels)
        x = net.depthwise(x, kernel, stride, 1, padding)
        net.output(net.conv(x, 4))
    x = net.depthwise(net.conv(net.input(6, 7, 3), 5), (3, 3))
    rescaled(net, 1 / 100)  # shifts of 1 and less
    net.output(x)
    x = net.depthwise(net.conv(net.input(6, 7, 3), 5), (3, 3), zero=-128)
    rescaled(net, 1 / 60)
    net.output(x)
    x = net.depthwise(net.conv(net.input(5, 9, 3), 24), (3, 3))
    rescaled(net, 1 / 60)  # a few channels are scaled up
    net.output(x)
    x = net.conv(net.input(7, 6, 2), 5, zero=-128)
    x = net.depthwise(x, (3, 3), pads=(2, 0, 0, 3), zero=-128)
    net.output(net.depthwise(x, (3, 3), 1, zero=-128))
    return net


def taps(seed: int) -> Net:
    random = np.random.default_rng(seed)
    net = Net(random)
    cases = (
        ((6, 5, 4), (3, 3), 1, 1, 1, "NONE"),
        ((6, 5, 1), (3, 3), 2, 1, 8, "RELU6"),
        ((7, 7, 3), (3, 3), 1, 2, 1, "NONE"),
        ((9, 1, 8), (9, 1), 1, 1, 1, "RELU6"),
        ((5, 9, 2), (2, 6), 3, 1, 3, "NONE"),
        ((9, 9, 2), (8, 8), 1, 1, 1, "RELU"),
    )
    for shape, kernel, stride, dilation, multiplier, activation in cases:
        net.output(
            net.depthwise(
                net.input(*shape), kernel, stride, dilation, activation=activation,
                multiplier=multiplier,
            )
        )  # fmt: skip
    return net


def dense(seed: int) -> Net:
    random = np.random.default_rng(seed)
    net = Net(random)
    for depth, units in ((1, 1), (7, 8), (8, 9), (40, 17), (64, 12), (65, 3), (128, 16)):
        activation = str(random.choice(["NONE", "RELU", "RELU6"]))
        net.output(net.dense(net.input(depth), units, activation))
        rescaled(net, float(random.choice([0.3, 1.0, 3.0])))
    return net


def sums(seed: int) -> Net:
    random = np.random.default_rng(seed)
    net = Net(random)
    for shape, activation in (((3, 5, 7), "NONE"), ((1, 1, 1), "RELU"), ((2, 2, 4), "RELU6"),
                              ((6, 1, 9), "NONE"), ((1, 3, 3), "RELU_N1_TO_1")):  # fmt: skip
        operands = []
        for _ in range(2):
            scale = float(np.float32(random.uniform(0.02, 0.2)))
            operands.append(net.activation((1, *shape), scale, int(random.integers(-128, 128))))
        net.inputs += operands
        net.output(net._finish("ADD", operands, AddAttributes(activation), 1, None))
        rescaled(net, float(random.choice([0.7, 3.0])))
    x = net.input(4, 4, 3)
    net.output(net.plus(x, net.conv(x, 3)))
    return net


@pytest.mark.parametrize("optimize", MODES)
def test_pointwise_convolutions(optimize: str) -> None:
    prove(pointwise(1), optimize, ["conv_2d_armv7m"])


@pytest.mark.parametrize("optimize", MODES)
def test_channels_that_never_change(optimize: str) -> None:
    functions = ["conv_2d_armv7m", "depthwise_conv_2d_armv7m_taps"]
    prove(silent(9), optimize, functions)


@pytest.mark.parametrize("optimize", MODES)
def test_convolutions_with_windows(optimize: str) -> None:
    prove(windows(2), optimize, ["conv_2d_armv7m"])


@pytest.mark.parametrize("optimize", MODES)
def test_chains_with_depthwise_layers(optimize: str) -> None:
    prove(
        chains(3),
        optimize,
        ["conv_2d_armv7m", "depthwise_conv_2d_armv7m", "depthwise_conv_2d_armv7m_taps"],
    )


@pytest.mark.parametrize("optimize", MODES)
def test_depthwise_layers_of_any_shape(optimize: str) -> None:
    prove(taps(4), optimize, ["depthwise_conv_2d_armv7m_taps"])


@pytest.mark.parametrize("optimize", MODES)
@pytest.mark.parametrize(
    ("build", "functions"),
    [
        (windows, ["conv_2d_armv7m"]),
        (chains, ["depthwise_conv_2d_armv7m_row", "depthwise_conv_2d_armv7m_taps"]),
        (sums, ["add_armv7m"]),
    ],
)
def test_row_by_row(build: Callable[[int], Net], functions: Sequence[str], optimize: str) -> None:
    prove(build(3), optimize, functions, streamed=True)


def test_sums() -> None:
    prove(sums(6), "balanced", ["add_armv7m"])


def test_every_pair_of_bytes_is_compared() -> None:
    node = addsub.params(Call(sums(7).graph(), sums(7).nodes[0]), 1)
    found = solve(node)
    assert found is not None
    a, b, c, shift = found
    assert addend_of(table(node), a, b, shift) == c
    assert addend_of(table(node), a + (1 << (shift - 5)), b, shift) is None


@pytest.mark.parametrize("profile", ["litert", "tflm"])
@pytest.mark.parametrize("optimize", MODES)
def test_dense_layers(optimize: str, profile: str) -> None:
    prove(dense(5), optimize, ["fully_connected_armv7m"], profile)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 16))
@pytest.mark.parametrize("build", [pointwise, windows, chains, taps, dense, sums])
def test_more_seeds(build: Callable[[int], Net], seed: int) -> None:
    prove(build(seed), MODES[seed % 2], [], streamed=seed % 3 == 0)
