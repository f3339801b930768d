"""Prove activations of 4 and 2 bits bit-exact on emulated cores, whole and row by row."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from kernel_lab import Net, run_on
from numpy.random import Generator, default_rng

from tinydeploy.ops import narrow, widen
from tinydeploy.targets import load_target


def needs(*tools: str) -> list[pytest.MarkDecorator]:
    missing = [t for t in tools if not shutil.which(t)]
    return [pytest.mark.qemu, pytest.mark.skipif(bool(missing), reason=f"needs {missing}")]


ARM = needs("qemu-system-arm", "arm-none-eabi-gcc")
RISCV = needs("qemu-system-riscv32", "riscv64-unknown-elf-gcc")


def packed(net: Net, x: int, bits: int, r: Generator) -> int:
    """Return a tensor that was packed and unpacked, through levels drawn at random."""
    levels = np.sort(r.choice(np.arange(-128, 128), 1 << bits, replace=False))
    content = levels.astype(np.int8).tobytes()
    small = net.node("NARROW", [x], narrow.Attributes(content))
    return net.node("WIDEN", [small], widen.Attributes(content, net.tensors[x].shape))


def network(seed: int) -> Net:
    """Return chains whose rows have 1 to 63 values, with a skip connection kept packed."""
    net, r = Net(default_rng(seed)), default_rng(seed + 1)
    for bits in (4, 2):
        for width, channels in ((1, 1), (5, 3), (7, 9), (4, 8)):
            x = net.conv(net.input(6, width, 3), channels, (3, 3))
            inner = net.depthwise(packed(net, x, bits, r), (3, 3))
            x = net.plus(packed(net, x, bits, r), net.conv(inner, channels))
            net.output(net.conv(packed(net, x, bits, r), 2))
        net.output(net.dense(packed(net, net.conv(net.input(1, 1, 5), 7), bits, r), 3))
    return net


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("mps2-an386", marks=ARM),
        pytest.param("riscv-virt", marks=RISCV),
        pytest.param("mps2-an385-armv6m", marks=[*ARM, pytest.mark.slow]),
        pytest.param("mps3-an547", marks=[*ARM, pytest.mark.slow]),
    ],
)
def test_pairs(target: str, streamed: bool) -> None:
    functions = ["td_narrow", "td_widen"]
    verdict, _, _ = run_on(
        load_target(target), network(3).graph(), samples=3, functions=functions, streamed=streamed
    )
    assert verdict.bit_exact, verdict.first_mismatch
