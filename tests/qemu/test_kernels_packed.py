"""Prove the kernels for weights of 2 and 4 bits bit-exact on emulated cores."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from kernel_lab import Net, run_on
from numpy.random import Generator, default_rng

from tests.unit.test_codebook import Coded
from tinydeploy.ir import Quantization
from tinydeploy.ir.graph import constant
from tinydeploy.ops import PLAIN
from tinydeploy.targets import load_target

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 64, 65, 129, 257)
ACTIVATIONS = ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")
DSP = ["td_conv_2d_int4_dsp", "td_fully_connected_int4_dsp"]


def needs(*tools: str) -> list[pytest.MarkDecorator]:
    missing = [t for t in tools if not shutil.which(t)]
    return [pytest.mark.qemu, pytest.mark.skipif(bool(missing), reason=f"needs {missing}")]


ARM = needs("qemu-system-arm", "arm-none-eabi-gcc")
RISCV = needs("qemu-system-riscv32", "riscv64-unknown-elf-gcc")


def pick(r: Generator, values: tuple[int, ...]) -> int:
    return int(r.choice(values))


def convolutions(net: Net, r: Generator, count: int) -> None:
    for height, width, depth, kernel, stride in (
        (7, 8, 4, 3, 1),
        (8, 12, 2, 4, 1),
        (9, 9, 1, 5, 2),
    ):
        net.output(net.conv(net.input(height, width, depth), 3, (kernel, kernel), stride))
    for k in range(count):
        kernel = (1, 1) if k % 2 else (pick(r, (1, 2, 3)), pick(r, (1, 2, 3, 4)))
        depth = pick(r, CHANNELS if kernel == (1, 1) else (1, 3, 8, 17))
        x = net.input(pick(r, (3, 5, 6)), pick(r, (4, 5, 6, 7, 12)), depth)
        net.output(net.conv(
            x, pick(r, (1, 2, 3, 4, 5, 8, 13, 33)), kernel, pick(r, (1, 1, 2, 3)),
            2 if k % 5 == 4 else 1, "SAME", str(r.choice(ACTIVATIONS)),
        ))  # fmt: skip


def dense(net: Net, r: Generator, count: int) -> None:
    for _ in range(count):
        x = net.input(pick(r, (*CHANNELS, 640, 200, 72)))
        units = pick(r, (1, 2, 3, 4, 5, 7, 8, 9, 13, 16))
        net.output(net.dense(x, units, str(r.choice(ACTIVATIONS))))


def chains(net: Net, r: Generator, count: int) -> None:
    """Pointwise, depthwise, pointwise: layouts are handed on."""
    for k in range(count):
        x = net.conv(net.input(5, pick(r, (4, 7)), 3), pick(r, (4, 5, 12)))
        x = net.depthwise(x, (3, 3), 1 + k % 2)
        net.output(net.conv(x, pick(r, (2, 6))))


def sweep(bits: int, seed: int) -> Net:
    net, r = Net(default_rng(seed), bits=bits), default_rng(100 + seed)
    convolutions(net, r, 12)
    dense(net, r, 8)
    chains(net, r, 3)
    return net


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("target", "functions"),
    [
        pytest.param("mps2-an386", DSP, marks=ARM),
        pytest.param("mps2-an505", DSP, marks=[*ARM, pytest.mark.slow]),
        pytest.param("mps2-an385", [], marks=ARM),
        pytest.param("mps2-an385-armv6m", [], marks=ARM),
        pytest.param("riscv-virt", [], marks=RISCV),
    ],
)
def test_odd_shapes(target: str, functions: list[str], bits: int) -> None:
    net = sweep(bits, 1)
    verdict, _, selection = run_on(load_target(target), net.graph(), samples=2, functions=functions)
    assert verdict.bit_exact, verdict.first_mismatch
    names = {k.function for k in selection.kernels if k}
    own = ("packed", "int4", "td_conv_2d_rv32", "td_conv_2d_armv7m")
    assert all(any(part in name for part in own) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("profile", ["litert", "tflm"])
class TestMore:
    pytestmark = ARM

    def test_dsp(self, bits: int, seed: int, profile: str) -> None:
        verdict, _, _ = run_on(
            load_target("mps2-an386"), sweep(bits, seed).graph(), "balanced", profile, 2, DSP
        )
        assert verdict.bit_exact, verdict.first_mismatch


@pytest.mark.parametrize("bits", [2, 4])
class TestDsp:
    pytestmark = ARM

    def test_largest_sums(self, bits: int) -> None:
        """All weights at an end of their range, with the most taps whose sums still fit."""
        net, least = Net(default_rng(5), bits=bits), -(1 << bits - 1)
        for value in (least, -least - 1):
            for zero in (-128, 127):
                taps = (2**19 - 1) // (128 * max(abs(value), 1)) // 4 * 4
                x = net.input(1, 2, taps, zero=zero)
                net.output(net.conv(x, 5, zero=-128))
                net.output(net.dense(net.input(taps, zero=zero), 9, zero=5))
                for node in net.nodes[-2:]:
                    w, out = node.inputs[1], node.outputs[0]
                    assert w is not None
                    data = np.full(net.tensors[w].shape, value, np.int8)
                    net.tensors[w] = replace(net.tensors[w], data=constant(data))
                    q = net.tensors[out].quantization
                    assert q is not None
                    wider = Quantization((q.scales[0] * 16,), q.zero_points)
                    net.tensors[out] = replace(net.tensors[out], quantization=wider)
        functions = [f for f in DSP]
        verdict, _, _ = run_on(load_target("mps2-an386"), net.graph(), functions=functions)
        assert verdict.bit_exact, verdict.first_mismatch

    def test_rounding_twice(self, bits: int) -> None:
        net = Net(default_rng(6), bits=bits)
        dense(net, default_rng(7), 8)
        verdict, _, _ = run_on(
            load_target("mps2-an386"), net.graph(), profile="tflm", functions=DSP[1:]
        )
        assert verdict.bit_exact, verdict.first_mismatch

    def test_planes_for_a_depthwise_reader(self, bits: int) -> None:
        """A packed pointwise convolution writes the planes that an int8 depthwise one wants."""
        net = Net(default_rng(8), bits=bits)
        x = net.conv(net.input(6, 7, 5), 9)
        net.bits = 8
        net.output(net.depthwise(x))
        verdict, _, selection = run_on(load_target("mps2-an386"), net.graph(), functions=DSP[:1])
        assert verdict.bit_exact, verdict.first_mismatch
        assert selection.layout(x) != PLAIN


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize(
    ("target", "function"),
    [
        pytest.param("mps2-an386", DSP[0], marks=ARM),
        pytest.param("mps2-an385-armv6m", "td_conv_2d_packed", marks=ARM),
        pytest.param("mps2-an385", "td_depthwise_conv_2d_packed", marks=ARM),
        pytest.param("riscv-virt", "td_conv_2d_widened_rv32", marks=RISCV),
    ],
)
def test_row_by_row(target: str, function: str, bits: int) -> None:
    """Streamed: only the rows that are given may be touched, and they may lie anywhere."""
    net, r = Net(default_rng(9), bits=bits), default_rng(10)
    for depth in (3, 8):
        x = net.conv(net.input(7, 9, depth), 6, (3, 3), 1)
        x = net.conv(net.depthwise(x), pick(r, (5, 8)))
        net.output(net.conv(x, 4, (2, 3), 2))
    verdict, _, _ = run_on(
        load_target(target), net.graph(), samples=2, functions=[function], streamed=True
    )
    assert verdict.bit_exact, verdict.first_mismatch


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("mps2-an386", marks=ARM),
        pytest.param("riscv-virt", marks=[*RISCV, pytest.mark.slow]),
    ],
)
def test_codebooks(target: str) -> None:
    """Indices of 16 values, layer by layer and row by row; enough of them to be worth the code."""
    net = Coded(default_rng(11))
    x = net.conv(net.input(7, 9, 14), 97, (3, 3), 1)
    x = net.conv(net.depthwise(net.depthwise(x)), 12)
    net.output(net.dense(x, 5))
    functions = ["td_conv_2d_codebook", "td_depthwise_conv_2d_codebook"]
    for streamed in (False, True):
        verdict, _, _ = run_on(
            load_target(target), net.graph(), "size", samples=2, functions=functions,
            streamed=streamed,
        )  # fmt: skip
        assert verdict.bit_exact, verdict.first_mismatch
