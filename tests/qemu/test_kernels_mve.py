"""Prove the kernels for MVE bit-exact on the emulated Cortex-M55, over odd shapes and scales."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from kernel_lab import Net, rescale, run_on, sharpen

from tinydeploy.ir import Node, Quantization
from tinydeploy.ir.graph import constant
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._pool import Attributes as PoolAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.mean import Attributes as MeanAttributes
from tinydeploy.targets import load_target

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        not shutil.which("qemu-system-arm") or not shutil.which("arm-none-eabi-gcc"),
        reason="needs qemu-system-arm and arm-none-eabi-gcc",
    ),
]

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
IN_STREAMS = {"td_mean_mve": "td_mean_rows"}  # adds up rows as they come


def check(
    net: Net,
    functions: set[str],
    optimize: str = "speed",
    profile: str = "litert",
    streamed: bool = False,
) -> None:
    """Run a network; every value must equal the reference and the kernels must be used."""
    if streamed:
        functions = {IN_STREAMS.get(f, f) for f in functions}
    verdict, _, _ = run_on(
        load_target("mps3-an547"), net.graph(), optimize, profile, samples=2,
        functions=sorted(functions), streamed=streamed,
    )  # fmt: skip
    assert verdict.bit_exact, verdict.first_mismatch


def pointwise(net: Net, r: np.random.Generator, count: int) -> set[str]:
    for k in range(count):
        channels = int(r.choice([1, 3, 8, 15, 16, 17, 31, 32, 33, 48, 64, 129, 200, 257]))
        filters = int(r.choice([1, 2, 3, 4, 5, 7, 8, 13, 16, 33]))
        h, w = int(r.integers(1, 6)), int(r.integers(1, 8))
        x = net.input(h, w, channels)
        out = net.conv(
            x, filters, stride=int(r.integers(1, 4)), activation=ACTIVATIONS[k % 4],
            padding=("SAME", "VALID")[k % 2],
        )  # fmt: skip
        if k % 5 == 0:
            rescale(net, out, float(2.0 ** r.integers(-16, 12)))
        if k % 7 == 0:
            sharpen(net, -128)
        if k % 6 == 1:
            stretch(net, r)
        if k % 3 == 2:
            halves(net, r)
        net.output(out)
    return {"td_conv_1x1_mve"}


def windows(net: Net, r: np.random.Generator, count: int) -> set[str]:
    for k in range(count):
        channels = int(r.choice([1, 2, 3, 5, 16, 17, 32, 40]))
        kernel = (int(r.integers(1, 6)), int(r.integers(2, 6)))
        h, w = int(r.integers(5, 10)), int(r.integers(5, 12))
        out = net.conv(
            net.input(h, w, channels), int(r.choice([1, 3, 4, 6, 8, 11])), kernel,
            int(r.integers(1, 4)), padding=("SAME", "VALID")[k % 2], activation=ACTIVATIONS[k % 4],
        )  # fmt: skip
        if k % 5 == 0:
            rescale(net, out, float(2.0 ** r.integers(-16, 12)))
        net.output(out)
    # Rows of less than 16 bytes, read in place: the next row begins before the last load's end.
    net.output(net.conv(net.input(6, 3, 2), 3, (2, 2)))
    x = net.input(9, 7, 1)
    net.output(net.depthwise(x, (3, 3), 2, multiplier=8, zero=-128))
    return {"td_conv_2d_mve"}


def depthwise(net: Net, r: np.random.Generator, count: int) -> set[str]:
    """Chains pointwise, depthwise, pointwise, so that planar rows are granted."""
    for k in range(count):
        channels = int(r.choice([1, 2, 3, 4, 5, 16, 19]))
        h, w = int(r.integers(3, 9)), int(r.choice([2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 19, 33]))
        size = int(r.choice([2, 3, 3, 3, 4, 5, 6, 7]))
        kernel, stride = ((3, 3), 1) if k % 2 else ((size, size), int(r.integers(1, 4)))
        x = net.conv(net.input(h, w, 4), channels)
        y = net.depthwise(x, kernel, stride, activation=ACTIVATIONS[k // 2 % 4])
        if k % 5 == 0:
            rescale(net, y, float(2.0 ** r.integers(-12, 10)))
        if k % 7 == 0:
            sharpen(net, -128)
        if k % 4 >= 2:
            halves(net, r)
        net.output(net.conv(y, 3))
    return {"td_depthwise_3x3_mve", "td_depthwise_mve"}


def lanes(net: Net, r: np.random.Generator, count: int) -> set[str]:
    for k in range(count):
        h, w, channels = int(r.integers(4, 9)), int(r.integers(1, 6)), int(r.integers(2, 41))
        kernel = (int(r.integers(1, 5)), int(r.integers(1, 1 + min(w, 4))))
        y = net.depthwise(
            net.input(h, w, channels), kernel, int(r.integers(1, 3)), int(r.integers(1, 3)),
            activation=ACTIVATIONS[k % 4],
        )  # fmt: skip
        if k % 3 == 0:
            rescale(net, y, float(2.0 ** r.integers(-12, 10)))
        if k % 4 == 0:
            sharpen(net, (-128, 127)[k % 8 // 4])
        if k % 4 == 2:
            halves(net, r)
        net.output(y)
    return {"td_depthwise_lanes_mve"}


def dense(net: Net, r: np.random.Generator, count: int) -> set[str]:
    for k in range(count):
        depth = int(r.choice([1, 2, 15, 16, 17, 100, 128, 129, 160, 257, 700]))
        units = int(r.choice([1, 2, 3, 7, 8, 9, 15, 16, 24, 33]))
        out = net.dense(net.input(depth), units, ACTIVATIONS[k % 4])
        if k % 3 == 0:
            rescale(net, out, float(2.0 ** r.integers(-14, 8)))
        if k % 4 == 0:
            sharpen(net, -128)
        if k % 5 == 1:
            stretch(net, r)
        if k % 5 == 3:
            halves(net, r)
        net.output(out)
    return {"td_fully_connected_mve"}


def halves(net: Net, r: np.random.Generator) -> None:
    """Give the last node tiny weights and multipliers that are powers of two: many ties."""
    x, w, b = net.nodes[-1].inputs
    out = net.nodes[-1].outputs[0]
    assert x is not None and w is not None and b is not None
    weights, zero = net.tensors[w], net.tensors[out].zero_point
    data = constant(r.integers(-1, 2, weights.shape).astype(np.int8))
    bias = constant(r.integers(-9, 10, net.tensors[b].shape).astype(np.int32))
    assert weights.quantization is not None
    scales = tuple(float(2.0 ** -r.integers(2, 6)) for _ in weights.quantization.scales)
    q = replace(weights.quantization, scales=scales)
    net.tensors[w] = replace(weights, data=data, quantization=q)
    net.tensors[b] = replace(net.tensors[b], data=bias)
    source = net.tensors[x].quantization
    assert source is not None
    zero = 0 if abs(zero) > 20 else zero
    net.tensors[out] = replace(net.tensors[out], quantization=Quantization(source.scales, (zero,)))


def stretch(net: Net, r: np.random.Generator) -> None:
    """Give the last node biases over the whole int32 range: sums wrap around."""
    b = net.nodes[-1].inputs[2]
    assert b is not None
    data = r.integers(-(2**31), 2**31, net.tensors[b].shape).astype(np.int32)
    net.tensors[b] = replace(net.tensors[b], data=constant(data))


def pool(net: Net, x: int, kernel: tuple[int, int], stride: int, padding: str) -> int:
    """Append an average pool; its output has the input's scale."""
    q = net.tensors[x].quantization
    assert q is not None
    out = net.activation((1,), q.scales[0], q.zero_points[0])
    attributes = PoolAttributes(Window(stride, stride, 1, 1, padding, "NONE"), *kernel)
    return append(net, Node("pool", "AVERAGE_POOL_2D", (x,), (out,), attributes))


def mean(net: Net, x: int) -> int:
    out = net.activation((1,), 0.01, int(net.random.integers(-128, 128)))
    return append(net, Node("mean", "MEAN", (x,), (out,), MeanAttributes((1, 2), False)))


def append(net: Net, node: Node) -> int:
    net.nodes.append(node)
    out = node.outputs[0]
    (shape,) = op_named(node.op).shape(Call(net.graph(), node))
    net.tensors[out] = replace(net.tensors[out], shape=shape)
    return net.output(out)


def small(net: Net, r: np.random.Generator, count: int) -> set[str]:
    for _ in range(count):
        shape = (int(r.integers(1, 5)), int(r.integers(1, 6)), int(r.integers(1, 20)))
        a, b = net.input(*shape), net.input(*shape)
        rescale(net, a, float(2.0 ** r.uniform(-3, 3)))
        out = net.plus(a, b)
        rescale(net, out, float(2.0 ** r.uniform(-14, -8)))
        net.output(out)
    for k in range(count // 2):
        size = (int(r.integers(1, 9)), int(r.integers(1, 9)))
        x = net.input(*size, int(r.integers(1, 40)))
        kernel = (int(r.integers(1, size[0] + 1)), int(r.integers(1, size[1] + 1)))
        pool(net, x, size if k == 0 else kernel, k % 3 + 1, ("SAME", "VALID")[k % 2])
        mean(net, net.input(*size, int(r.integers(1, 40))))
    return {"td_add_mve", "td_average_pool_2d_mve", "td_mean_mve"}


def streams(net: Net, r: np.random.Generator, count: int) -> set[str]:
    """Residual chains through rings: rows at any address, odd and even widths, one large image."""
    for k in range(count):
        h, w = int(r.integers(9, 19)), int(r.choice(([5, 9, 19, 21], [10, 12, 20, 34])[k % 2]))
        if k == 3:
            h, w = 40, 36
        channels = 16 if k == 3 else int(r.integers(3, 18))
        size = int(r.choice([2, 3, 5]))
        x = net.conv(net.input(h, w, int(r.integers(1, 5))), channels, (size, 3))
        y = net.conv(x, channels, (3, 3) if k == 2 else (1, 1))
        y = net.depthwise(net.depthwise(y), activation=ACTIVATIONS[k % 4])
        y = net.plus(x, net.conv(y, channels, (3, 3) if k % 2 else (1, 1)))
        y = net.depthwise(net.conv(y, 7), (5, 5) if k % 3 else (3, 3), int(r.integers(1, 3)))
        net.output(net.conv(y, 5, stride=int(r.integers(1, 3))))
    return {"td_conv_1x1_mve", "td_conv_2d_mve", "td_depthwise_3x3_mve", "td_depthwise_mve"}


@pytest.mark.parametrize("producer", ["conv_1x1", "conv_2d", "depthwise_3x3"])
def test_ends_of_a_ring_can_be_far_apart(producer: str) -> None:
    """A ring of 23 rows, 74 KB: farther than the 16-bit offsets by which two rows are written."""
    net = Net(np.random.default_rng(3))
    x = net.conv(net.input(41, 101, 1), 32, (3, 3) if producer == "conv_2d" else (1, 1))
    x = y = net.depthwise(x) if producer == "depthwise_3x3" else x
    for taps in (11, 11, 11, 12):
        y = net.depthwise(y, (taps, 1))
    net.output(net.conv(net.plus(x, y), 2))
    check(net, {f"td_{producer}_mve"}, streamed=True)


SWEEPS: dict[str, tuple[Callable[[Net, np.random.Generator, int], set[str]], int]] = {
    "pointwise": (pointwise, 24),
    "windows": (windows, 16),
    "depthwise": (depthwise, 20),
    "lanes": (lanes, 14),
    "dense": (dense, 18),
    "small": (small, 12),
    "streams": (streams, 4),
}


@pytest.mark.parametrize(
    ("name", "optimize", "profile", "streamed"),
    [
        ("pointwise", "speed", "litert", False),
        ("pointwise", "balanced", "litert", True),
        ("windows", "balanced", "litert", False),
        ("windows", "speed", "litert", True),
        ("depthwise", "speed", "tflm", False),
        ("depthwise", "balanced", "litert", True),
        ("lanes", "balanced", "litert", False),
        ("dense", "speed", "litert", False),
        ("dense", "balanced", "tflm", False),
        ("small", "speed", "litert", False),
        ("small", "balanced", "tflm", True),
        ("streams", "balanced", "litert", True),
    ],
)
def test_sweep_is_bit_exact(name: str, optimize: str, profile: str, streamed: bool) -> None:
    fill, count = SWEEPS[name]
    random = np.random.default_rng([17, len(name), len(profile)])
    net = Net(random)
    functions = fill(net, random, count)
    check(net, functions, optimize, profile, streamed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", SWEEPS)
def test_long_sweep_is_bit_exact(name: str, seed: int) -> None:
    fill, count = SWEEPS[name]
    random = np.random.default_rng([seed, len(name)])
    net = Net(random)
    streamed = seed % 3 == 0 or name == "streams"
    functions = fill(net, random, count if name == "streams" else 2 * count)
    optimize, profile = ("speed", "balanced")[seed % 2], ("litert", "tflm")[seed // 2 % 2]
    check(net, functions, optimize, profile, streamed)
