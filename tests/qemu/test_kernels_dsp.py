"""Prove the kernels for the DSP extension bit-exact on emulated Cortex-M4, M7 and M33 cores."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from kernel_lab import Net, rescale, run_on, sharpen
from numpy.random import Generator, default_rng

from tinydeploy.ir import Node, Quantization
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._elementwise import Attributes as AddAttributes
from tinydeploy.ops._pool import Attributes as PoolAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.base import Pace
from tinydeploy.ops.mean import Attributes as MeanAttributes
from tinydeploy.targets import load_target

needs_machine = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        not shutil.which("qemu-system-arm") or not shutil.which("arm-none-eabi-gcc"),
        reason="needs qemu-system-arm and arm-none-eabi-gcc",
    ),
]

ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 64, 65, 129, 257)
MODES = ("speed", "balanced")
FEW_COLUMNS = {"speed": "td_depthwise_3x3_narrow_dsp", "balanced": "td_depthwise_3x3_dsp"}


class Tame(Net):
    """Draw weights as converters do: none is -128, and scales differ by less than 2^4."""

    def _weights(self, shape: tuple[int, ...], axis: int, fan_in: int) -> tuple[int, int]:
        w, b = super()._weights(shape, axis, fan_in)
        t = self.tensors[w]
        assert t.data is not None
        data = np.maximum(t.data, -127)
        scales = np.float32(0.004 * 2.0 ** self.random.uniform(-1.5, 1.5, shape[axis]))
        q = Quantization(tuple(map(float, scales)), (0,) * shape[axis], axis)
        self.tensors[w] = replace(t, data=constant(data), quantization=q)
        return w, b


def check(
    net: Net, functions: set[str], optimize: str, target: str = "mps2-an386",
    profile: str = "litert", streamed: bool = False, pace: Pace = "even",
) -> None:  # fmt: skip
    """Run a network; every value must equal the reference and the kernels must be used."""
    verdict, _, _ = run_on(
        load_target(target), net.graph(), optimize, profile, samples=2,
        functions=sorted(functions), streamed=streamed, pace=pace,
    )  # fmt: skip
    assert verdict.bit_exact, verdict.first_mismatch


def pick(r: Generator, values: tuple[int, ...]) -> int:
    return int(r.choice(values))


def activation(r: Generator) -> str:
    return str(r.choice(ACTIVATIONS))


def convolutions(net: Net, r: Generator, count: int) -> None:
    # Images with rows and columns that need no padding beside some that do, full tiles or not.
    for height, width, depth, kernel, stride in (
        (7, 8, 4, 3, 1), (7, 6, 3, 3, 1), (8, 12, 2, 4, 1), (9, 9, 1, 5, 1), (9, 12, 4, 3, 2),
    ):  # fmt: skip
        net.output(net.conv(net.input(height, width, depth), 3, (kernel, kernel), stride))
    for k in range(count):
        depth = pick(r, CHANNELS)
        kernel = (1, 1) if k % 2 else (pick(r, (1, 2, 3, 5)), pick(r, (1, 2, 3, 4, 7)))
        if depth > 30 and kernel != (1, 1):
            depth = pick(r, (1, 3, 16, 17))
        height, width = pick(r, (1, 2, 3, 5, 6, 9)), pick(r, (1, 2, 3, 5, 6, 7, 12, 13))
        x = net.input(max(height, kernel[0]), max(width, kernel[1]), depth)
        net.output(net.conv(
            x, pick(r, (1, 2, 3, 4, 5, 8, 13, 16, 33)), kernel, pick(r, (1, 1, 2, 3)),
            padding=str(r.choice(["SAME", "VALID"])), activation=activation(r),
        ))  # fmt: skip


def depthwise_chains(net: Net, r: Generator, count: int) -> None:
    for k in range(count):
        channels, stride = pick(r, (1, 2, 4, 5, 8, 13, 20)), 1 + k % 2
        width = (16, 27)[k] if k < 2 else pick(r, (3, 4, 5, 6, 7, 8, 11, 14, 17))
        if k < 2:  # not a convolution of all channels: the kernel for wide rows is always used
            channels = max(channels, 2)
        height = pick(r, (3, 4, 5, 6, 9))
        x = net.conv(net.input(height, width, 3), channels, zero=pick(r, (-128, -7, 127)))
        pads = None
        if k % 3 == 2:
            pads = tuple(int(v) for v in r.integers(0, 3, 4))
        x = net.depthwise(
            x, (3, 3), stride, padding=str(r.choice(["SAME", "VALID"])) if height > 3 else "SAME",
            activation=activation(r), pads=pads,
        )  # fmt: skip
        net.output(net.conv(x, pick(r, (2, 3, 4))) if k % 2 else x)


def depthwise_taps(net: Net, r: Generator, count: int) -> None:
    for k in range(count):
        channels = pick(r, (4, 5, 6, 7, 8, 13, 33))
        if k % 3 == 0:
            x = net.input(pick(r, (9, 16)), 1, channels)
            net.output(net.depthwise(x, (pick(r, (3, 4, 9)), 1), padding="VALID"))
            continue
        height, width = pick(r, (3, 5, 8)), pick(r, (2, 5, 7))
        x = net.input(height, width, channels)
        kernel = (pick(r, (1, 2, 3, 5, 7)), pick(r, (1, 3, 4, 5)))
        dilation = 2 if k % 4 == 1 else 1
        net.output(net.depthwise(
            x, kernel, 1 if dilation > 1 else pick(r, (1, 2, 3)), dilation, "SAME", activation(r),
        ))  # fmt: skip
    x = net.input(11, 9, 1)
    net.output(net.depthwise(x, (5, 4), 2, multiplier=8))


def dense(net: Net, r: Generator, count: int) -> None:
    for _ in range(count):
        x = net.input(pick(r, (*CHANNELS, 640, 200, 72)))
        net.output(net.dense(x, pick(r, (1, 2, 3, 4, 5, 7, 8, 13)), activation(r)))


def sums(net: Net, r: Generator, count: int) -> None:
    for k in range(count):
        shape = (pick(r, (1, 3, 5)), pick(r, (1, 2, 7)), pick(r, (1, 3, 4, 9)))
        a, b = net.input(*shape), net.input(*shape)
        q = net.tensors[b].quantization
        assert q is not None
        scale = 0.05 * float(r.uniform(0.05, 4.0))
        net.tensors[b] = replace(net.tensors[b], quantization=Quantization((scale,), q.zero_points))
        out = net._finish(
            ("ADD", "SUB")[k % 2], [a, b], AddAttributes(activation(r)), 1, pick(r, (-128, 3, 60))
        )
        rescale(net, out, 0.012 / max(0.05, scale))
        net.output(out)


def pools(net: Net, r: Generator, count: int) -> None:
    for k in range(count):
        height, width = pick(r, (3, 8, 25)), pick(r, (3, 5, 12))
        channels = pick(r, (4, 5, 7, 8, 33))
        x = net.input(height, width, channels)
        kernel = (height, width) if k % 2 else (pick(r, (2, 3)), pick(r, (2, 3)))
        window = Window(1, pick(r, (1, 2)), 1, 1, "VALID" if k % 2 else "SAME", activation(r))
        node = Node(f"pool_{k}", "AVERAGE_POOL_2D", (x,), (0,), PoolAttributes(window, *kernel))
        out = net.add(net.tensors[x])
        node = replace(node, outputs=(out,))
        net.nodes.append(node)
        (shape,) = op_named(node.op).shape(Call(net.graph(), node))
        net.tensors[out] = replace(net.tensors[out], shape=shape, name=f"p{out}")
        net.output(out)
        net.output(net._finish("MEAN", [x], MeanAttributes((1, 2), bool(k % 2)), 1, None))
        rescale(net, net.outputs[-1], 8.0)


SWEEPS = {
    "conv": (convolutions, 14, {"td_conv_2d_dsp"}),
    "planes": (depthwise_chains, 12, {"td_depthwise_3x3_dsp", "td_conv_2d_dsp"}),
    "taps": (depthwise_taps, 9, {"td_depthwise_taps_dsp", "td_conv_2d_dsp"}),
    "dense": (dense, 12, {"td_fully_connected_dsp"}),
}


@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize(
    ("kind", "optimize"), [(Tame, "speed"), (Tame, "balanced"), (Net, "balanced")]
)
class TestSweeps:
    pytestmark = needs_machine

    def test_odd_shapes(self, sweep: str, optimize: str, kind: type[Net]) -> None:
        fill, count, functions = SWEEPS[sweep]
        net, r = kind(default_rng(1)), default_rng(len(sweep))
        fill(net, r, count)
        check(net, functions, optimize)

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(2, 8))
    def test_more_shapes(self, sweep: str, optimize: str, kind: type[Net], seed: int) -> None:
        fill, count, functions = SWEEPS[sweep]
        net, r = kind(default_rng(seed)), default_rng(100 * seed)
        fill(net, r, count)
        target = ("mps2-an386", "mps2-an500", "mps2-an505")[seed % 3]
        check(net, functions, optimize, target, streamed=seed % 2 == 1)


class TestNodes:
    pytestmark = needs_machine

    def test_elementwise_and_pools(self) -> None:
        net, r = Net(default_rng(3)), default_rng(4)
        sums(net, r, 10)
        pools(net, r, 6)
        check(net, {"td_add_dsp", "td_average_pool_2d_dsp", "td_mean_dsp"}, "speed")

    @pytest.mark.parametrize(
        ("width", "pace", "optimize"),
        [
            # Every two choices meet, and with --slow all three.
            pytest.param(w, p, o, marks=[pytest.mark.slow] if (i + j + k) % 2 else [])
            for i, w in enumerate((5, 14))
            for j, p in enumerate(("even", "tight", "wide"))
            for k, o in enumerate(MODES)
        ],
    )
    def test_streamed_chain(self, width: int, pace: Pace, optimize: str) -> None:
        """Rows in rings: planar ones that wrap, residual sums, and taps that need no layout."""
        net = Tame(default_rng(width))
        x = net.conv(net.input(24, width, 3), 4, (3, 3))
        x = net.plus(x, net.conv(net.depthwise(net.conv(x, 12, zero=-9)), 4))
        x = net.depthwise(net.conv(x, 9, zero=5), stride=2, activation="RELU6")
        x = net.depthwise(net.depthwise(x, (5, 3)), zero=7)
        net.output(net.conv(x, 2))
        planes = "td_depthwise_3x3_dsp" if width > 12 else FEW_COLUMNS[optimize]
        planes = "td_depthwise_3x3_row_dsp" if pace == "tight" else planes
        used = {"td_conv_2d_dsp", "td_add_dsp", "td_depthwise_taps_dsp", planes}
        check(net, used, optimize, streamed=True, pace=pace)

    @pytest.mark.parametrize(
        ("kind", "optimize"),
        [
            (Tame, "speed"),
            (Net, "balanced"),
            pytest.param(Tame, "balanced", marks=pytest.mark.slow),
            pytest.param(Net, "speed", marks=pytest.mark.slow),
        ],
    )
    def test_planes_in_small_rings(self, kind: type[Net], optimize: str) -> None:
        net, r = kind(default_rng(2)), default_rng(2)
        depthwise_chains(net, r, 14)
        check(net, {"td_depthwise_3x3_row_dsp"}, optimize, streamed=True, pace="tight")

    @pytest.mark.parametrize("target", ["mps2-an500", "mps2-an505"])
    def test_other_cores(self, target: str) -> None:
        net, r = Tame(default_rng(5)), default_rng(6)
        for fill in (convolutions, depthwise_chains, depthwise_taps, dense, sums, pools):
            fill(net, r, 3)
        check(net, {f for _, _, names in SWEEPS.values() for f in names}, "balanced", target)

    def test_dense_that_rounds_twice(self) -> None:
        net, r = Tame(default_rng(7)), default_rng(8)
        dense(net, r, 8)
        check(net, {"td_fully_connected_dsp"}, "speed", profile="tflm")
        check(net, {"td_fully_connected_dsp"}, "balanced", profile="tflm")

    @pytest.mark.parametrize("filters", [4, 5])
    def test_weights_of_minus_128_share_halfwords(self, filters: int) -> None:
        """Half of the channels hold -128, and each finds a partner without."""
        net = Tame(default_rng(12))
        net.output(net.conv(net.input(5, 5, 7, zero=9), filters, (3, 3), zero=-3))
        w = net.nodes[-1].inputs[1]
        assert w is not None
        data = np.array(net.tensors[w].data)
        data[: filters // 2, :, :, ::2] = -128
        net.tensors[w] = replace(net.tensors[w], data=constant(data))
        graph = net.graph()
        verdict, _, selection = run_on(load_target("mps2-an386"), graph, samples=2)
        assert verdict.bit_exact, verdict.first_mismatch
        kernel = selection.kernels[0]
        assert kernel is not None
        assert kernel.constants(selection.site(graph, 0, PROFILES["litert"]))["bits"] == 8

    @pytest.mark.parametrize("optimize", MODES)
    @pytest.mark.parametrize(("zero", "least"), [(-128, 5), (11, 2)])
    def test_sums_where_roundings_tie(self, zero: int, least: int, optimize: str) -> None:
        """With multipliers of 2^-k, all sums of a few hundred neighbours: many lie between two
        outputs, where an addend that is off by one shows."""
        net, channels = Tame(default_rng(14)), 48
        net.output(net.conv(net.input(32, 32, 2, zero=-17), channels, zero=zero))
        k = least + np.arange(channels) % 4
        x, w, b = net.nodes[-1].inputs
        assert x is not None and w is not None and b is not None
        # The scales of input and output must be powers of two, so that their ratio is one.
        for t, scale in ((x, 2.0**-4), (net.nodes[-1].outputs[0], 2.0**-3)):
            old = net.tensors[t].quantization
            assert old is not None
            fresh = Quantization((scale,), old.zero_points)
            net.tensors[t] = replace(net.tensors[t], quantization=fresh)
        scales = Quantization(tuple(2.0 ** (1.0 - k)), (0,) * channels, 0)
        weights = np.tile(np.array([1, 9], np.int8), (channels, 1)).reshape(channels, 1, 1, 2)
        net.tensors[w] = replace(net.tensors[w], data=constant(weights), quantization=scales)
        low, high = (0, 200) if zero < 0 else (-100, 80)
        middle = default_rng(15).integers(low, high, channels) << k
        net.tensors[b] = replace(net.tensors[b], data=constant(middle.astype(np.int32)))
        graph = net.graph()
        verdict, _, selection = run_on(load_target("mps2-an386"), graph, optimize, samples=2)
        assert verdict.bit_exact, verdict.first_mismatch
        kernel = selection.kernels[0]
        assert kernel is not None
        how = kernel.constants(selection.site(graph, 0, PROFILES["litert"]))
        assert how["bits"] == (8 if optimize == "balanced" else 16)
        assert (how["uniform"] > 0) == (zero == -128)

    @pytest.mark.parametrize("optimize", MODES)
    def test_multipliers_from_tiny_to_huge(self, optimize: str) -> None:
        """Shifts from -25 to +6: kernels take those that their constants can express."""
        net = Tame(default_rng(9))
        for exponent in (-17, -9, -4, 1, 7, 11):
            for zero in (-128, 11):
                x = net.conv(net.input(3, 4, 6), 5, zero=zero)
                rescale(net, x, 2.0**exponent)
                net.output(x)
                y = net.conv(net.input(4, 5, 2), 4, zero=-128)
                y = net.depthwise(y, zero=zero)
                rescale(net, y, 2.0**exponent)
                net.output(y)
            d = net.dense(net.input(20), 5, zero=11)
            rescale(net, d, 2.0**exponent)
            net.output(d)
        check(net, {"td_conv_2d_dsp", FEW_COLUMNS[optimize], "td_fully_connected_dsp"}, optimize)

    @pytest.mark.parametrize("optimize", MODES)
    def test_largest_sums(self, optimize: str) -> None:
        net = Tame(default_rng(10))
        for value in (127, -127, -128):
            for zero in (-128, 127):
                net.output(net.conv(net.input(3, 3, 257, zero=zero), 3, (3, 3), zero=5))
                sharpen(net, value)
                net.output(net.dense(net.input(4097, zero=zero), 3))
                sharpen(net, value)
                x = net.conv(net.input(4, 4, 2), 4, zero=zero)
                net.output(net.depthwise(x, zero=-128))
                sharpen(net, value)
        check(net, {"td_conv_2d_dsp", FEW_COLUMNS[optimize], "td_fully_connected_dsp"}, optimize)
