"""Weights of 16 int8 values: found, indexed by four bits, computed bit for bit as the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hostlib import check_sanitized
from kernel_lab import Net
from numpy.random import Generator, default_rng

from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops._codebook import indices
from tinydeploy.ops._weights import codebook
from tinydeploy.plan.select import Core, select
from tinydeploy.quantize.codebook import quantize_to_codebook
from tinydeploy.quantize.weights import quantize_weights


class Coded(Net):
    """Make layers whose weights are 16 values of the tensor's own."""

    def _weights(self, shape: tuple[int, ...], axis: int, fan_in: int) -> tuple[int, int]:
        w, b = super()._weights(shape, axis, fan_in)
        book = np.sort(self.random.choice(np.arange(-128, 128), 16, replace=False))
        book[[0, -1]] = -128, 127
        data = self.random.choice(book, shape).astype(np.int8)
        self.tensors[w] = replace(self.tensors[w], data=constant(data))
        return w, b


def convolutions(net: Net, r: Generator) -> None:
    for kernel, depth, filters, groups in (
        ((3, 3), 5, 7, 1),
        ((1, 1), 33, 9, 1),
        ((2, 3), 8, 12, 2),
    ):
        x = net.input(int(r.integers(3, 8)), int(r.integers(3, 9)), depth)
        net.output(net.conv(x, filters, kernel, int(r.integers(1, 3)), 1, "SAME", "RELU6", groups))


def depthwise(net: Net, r: Generator) -> None:
    for channels, multiplier, dilation in ((31, 1, 1), (29, 1, 2), (15, 3, 1)):
        x = net.input(int(r.integers(3, 8)), int(r.integers(3, 9)), channels)
        net.output(net.depthwise(x, (3, 3), 1, dilation, multiplier=multiplier))


def dense(net: Net, r: Generator) -> None:
    for inputs, units in ((64, 5), (257, 1), (33, 8)):
        net.output(net.dense(net.input(inputs), units, str(r.choice(["NONE", "RELU"]))))


@pytest.mark.parametrize("fill", [convolutions, depthwise, dense])
def test_host(fill: Any, capfd: Any) -> None:
    """C on the host, undefined behaviour trapped, equals the reference."""
    r = default_rng(1)
    net = Coded(r, f"coded_{fill.__name__}")
    fill(net, r)
    check_sanitized([net.graph()], "codebook", r, capfd)


def test_speed_alone_takes_wider_weights() -> None:
    net = Coded(default_rng(0))
    net.output(net.dense(net.input(64), 8))
    chosen = {
        optimize: select(net.graph(), PROFILES["litert"], Core("", frozenset(), optimize)).kernels[
            0
        ]
        for optimize in ("balanced", "speed", "size")
    }
    assert {o: k.function for o, k in chosen.items() if k} == {
        "balanced": "td_fully_connected_codebook",
        "speed": "td_fully_connected",
        "size": "td_fully_connected",
    }


def test_values_are_found_and_indexed() -> None:
    values = np.resize(np.array([-100, 0, 3, 90], np.int8), (20, 20))
    book = codebook(values)
    assert book is not None and book.tolist() == [-100, 0, 3, *[90] * 13]
    np.testing.assert_array_equal(book[indices(values, book) & 15], values)
    assert codebook(np.resize(np.arange(-9, 8, dtype=np.int8), 400)) is None
    assert codebook(np.resize(np.arange(-8, 8, dtype=np.int8), 400)) is None
    assert codebook(values[0]) is None


@pytest.mark.parametrize(("shape", "axis"), [((16, 3, 3, 8), 0), ((1, 3, 3, 40), 3), ((12, 90), 0)])
@pytest.mark.parametrize("spread", ["normal", "laplace"])
def test_codebooks_err_less_than_uniform_4_bits(
    shape: tuple[int, ...], axis: int, spread: str
) -> None:
    weights = getattr(default_rng(3), spread)(size=shape).astype(np.float32)
    weights[tuple(0 if k == axis else slice(None) for k in range(len(shape)))] = 0
    coded = quantize_to_codebook(weights, axis)
    uniform = quantize_weights(weights, axis, 4)
    assert len(np.unique(coded.values)) <= 16 and 0 in coded.values
    error = [((q.real() - weights) ** 2).sum() for q in (coded, uniform)]
    assert error[0] < 0.9 * error[1]
    assert not coded.real()[weights == 0].any()
