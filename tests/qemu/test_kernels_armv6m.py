"""Prove the Armv6-M kernels bit-exact on the emulator, over the shapes of the Armv7-M tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_lab import Net

from tests.qemu.test_kernels_armv7m import (
    MODES,
    chains,
    dense,
    pointwise,
    prove,
    silent,
    sums,
    taps,
    windows,
)

pytestmark = pytest.mark.qemu

TARGET = "mps2-an385-armv6m"


@pytest.mark.parametrize("optimize", MODES)
def test_pointwise_convolutions(optimize: str) -> None:
    prove(pointwise(21), optimize, ["conv_2d_armv6m"], target=TARGET)


@pytest.mark.parametrize("optimize", MODES)
def test_convolutions_with_windows(optimize: str) -> None:
    prove(windows(22), optimize, ["conv_2d_armv6m"], target=TARGET)


@pytest.mark.parametrize("build", [chains, taps])
def test_depthwise_layers(build: Callable[[int], Net]) -> None:
    prove(build(23), "balanced", ["depthwise_conv_2d_armv6m"], target=TARGET)


@pytest.mark.parametrize("build", [windows, chains, sums])
def test_row_by_row(build: Callable[[int], Net]) -> None:
    prove(build(26), "balanced", [], target=TARGET, streamed=True)


def test_channels_that_never_change() -> None:
    functions = ["conv_2d_armv6m", "depthwise_conv_2d_armv6m"]
    prove(silent(9), "balanced", functions, target=TARGET)


def test_sums() -> None:
    prove(sums(25), "balanced", ["add_armv6m"], target=TARGET)


@pytest.mark.parametrize("profile", ["litert", "tflm"])
@pytest.mark.parametrize("optimize", MODES)
def test_dense_layers(optimize: str, profile: str) -> None:
    prove(dense(24), optimize, ["fully_connected_armv6m"], profile, TARGET)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 36))
@pytest.mark.parametrize("build", [pointwise, windows, chains, taps, dense, sums])
def test_more_seeds(build: Callable[[int], Net], seed: int) -> None:
    prove(build(seed), MODES[seed % 2], [], target=TARGET, streamed=seed % 3 == 0)
