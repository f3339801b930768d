"""Check int16 activations: requantisation against fractions, bounds of sums, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from builder import Builder
from hostlib import compile_all
from networks import float_network
from test_cheaper_passes import mobile_net

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import DType, Graph, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics import interpolation
from tinydeploy.numerics.fixedpoint import (
    reduced_multiplier,
    requantize_wide,
    requantize_wide_once,
)
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.execute import run_outputs, total_macs
from tinydeploy.passes import run_passes
from tinydeploy.quantize.quantize import Settings, quantize
from tinydeploy.verify.litert import LiteRt

LITERT = PROFILES["litert"]


def ties(random: np.random.Generator, multiplier: int, total: int) -> list[int]:
    """Return sums of up to 48 bits whose products lie around halves of a step."""
    found = []
    for _ in range(20):
        step = int(random.integers(-(2**15), 2**15))
        near = ((2 * step + 1) << total) // (2 * multiplier)
        found += [x for x in (near - 1, near, near + 1) if abs(x) < 2**47]
    return found


@pytest.mark.parametrize("shift", [7, 0, -1, -9, -20, -31])
def test_wide_sums_are_rounded_once(shift: int) -> None:
    random = np.random.default_rng(shift + 40)
    for _ in range(20):
        m = int(random.integers(1 << 30, 1 << 31))
        reduced = int(reduced_multiplier(np.array([m]))[0])
        assert reduced == min((m + 2**15) // 2**16, 2**15 - 1)
        for multiplier, total, function in (
            (reduced, 15 - shift, requantize_wide), (m, 31 - shift, requantize_wide_once),
        ):  # fmt: skip
            for x in ties(random, multiplier, total):
                size = abs(x) if function is requantize_wide_once else x
                want = floor(Fraction(size * multiplier, 2**total) + Fraction(1, 2))
                want = -want if size != x else want
                assert int(function(np.array([x]), multiplier, shift)[0]) == want


def test_tables_are_near_their_functions() -> None:
    x = np.arange(-(2**15), 2**15)
    found = interpolation.interpolated(interpolation.exponentials(), x) / 2**15
    assert np.abs(found - np.exp((x - 32767) * (10 / 65535))).max() < 2e-4
    found = interpolation.interpolated(interpolation.reciprocals(), x) / 2**15
    assert np.abs(found - 1 / (1 + (x + 32768) / 65535)).max() < 2e-4
    table = interpolation.sigmoids() / 65536
    assert np.abs(table - 1 / (1 + np.exp(-np.arange(256) / 24))).max() < 3e-5


def test_softmax_multiplies_its_factors_as_the_runtime_does() -> None:
    """In float32 LiteRT, in float64 TensorFlow Lite Micro: few distances show it."""
    b = Builder()
    x = b.tensor((2**15, 2), "int16", 2.0**-12 * 0.9, 0)
    y = b.tensor((2**15, 2), "int16", 2.0**-15, 0)
    b.operator("SOFTMAX", [x], y, Beta=0.7)
    content = b.build([x], [y])
    graph = read_bytes(content, "m")
    values = np.full((2**15, 2), 2**15 - 1, np.int16)
    values[:, 1] -= np.arange(2**15, dtype=np.int16)
    (wanted,) = LiteRt(content).run([values])
    np.testing.assert_array_equal(run_outputs(graph, [values], LITERT)[0], wanted)
    assert (run_outputs(graph, [values], PROFILES["tflm"])[0] != wanted).any()


def dense(depth: int, bias: int, kind: str = "int64", zero: int = 0, out: str = "int16") -> Graph:
    """Return a dense layer of int16 with all weights at -128."""
    b = Builder()
    x = b.tensor((1, depth), "int16", 0.001, zero)
    weights = b.constant(np.full((1, depth), -128), "int8", 0.01)
    y = b.tensor((1, 1), out, 0.5)
    b.operator("FULLY_CONNECTED", [x, weights, b.constant([bias], kind, 1e-5)], y)
    return read_bytes(b.build([x], [y]), "m")


@pytest.mark.parametrize(("depth", "bias", "wide"), [
    (511, 0, False), (511, 2**22 - 1, False), (511, -(2**22), True), (512, 0, True),
])  # fmt: skip
def test_sums_are_narrow_only_where_all_inputs_fit(depth: int, bias: int, wide: bool) -> None:
    graph = run_passes(dense(depth, bias), LITERT)
    params = op_named("FULLY_CONNECTED").params(Call(graph, graph.nodes[0]), LITERT)
    assert params.bias.dtype == (np.int64 if wide else np.int32)
    (host,) = compile_all([graph], LITERT, flags=("-O1", "-fsanitize=undefined"))
    for value in (-32768, 32767):
        inputs = [np.full((1, depth), value, np.int16)]
        assert host.run(inputs)[0] == run_outputs(graph, inputs, LITERT)[0]


@pytest.mark.parametrize(("what", "graph"), [
    ("zero point", lambda: dense(4, 0, zero=1)),
    ("bias is int32", lambda: dense(4, 0, kind="int32")),
    ("is int8", lambda: dense(4, 0, out="int8")),
    ("more than 47 bits", lambda: dense(4, 2**46)),
])  # fmt: skip
def test_what_is_refused(what: str, graph: Callable[[], Graph]) -> None:
    with pytest.raises(ModelError, match=what):
        run_passes(graph(), LITERT)


def test_sums_of_shifts_alone_are_refused() -> None:
    b = Builder()
    x, y = (b.tensor((1, 4), "int16", 2.0**-12) for _ in range(2))
    b.operator("ADD", [x, x], y)
    with pytest.raises(ModelError, match="powers of two"):
        read_bytes(b.build([x], [y]), "m")


def widened(tensor: Tensor) -> Tensor:
    """Return an int8 activation as int16, an int32 bias as int64."""
    if tensor.dtype is DType.INT32 and tensor.data is not None:
        return replace(tensor, dtype=DType.INT64, data=constant(tensor.data.astype(np.int64) << 8))
    if tensor.constant:
        return tensor
    return replace(
        tensor, dtype=DType.INT16, quantization=Quantization((tensor.scale / 256,), (0,))
    )


@pytest.mark.parametrize("seed", range(6))
def test_dead_channels_go_and_nothing_else_changes(seed: int) -> None:
    random = np.random.default_rng(seed)
    graph = mobile_net(random, dead=0.4)
    graph = graph.replace(tensors=tuple(map(widened, graph.tensors)))
    after = run_passes(graph, LITERT)
    assert total_macs(after) < total_macs(graph)
    shape = graph.tensors[graph.inputs[0]].shape
    for values in (random.integers(-32768, 32768, shape), random.choice([-32768, 32767], shape)):
        inputs = [values.astype(np.int16)]
        want = run_outputs(graph, inputs, LITERT)
        np.testing.assert_array_equal(run_outputs(after, inputs, LITERT)[0], want[0])


def test_a_float_network_becomes_int16() -> None:
    floats = read_bytes(float_network(), "m")
    random = np.random.default_rng(0)
    shapes = [floats.tensors[i].shape for i in floats.inputs]
    samples = [[random.uniform(-1, 1, s).astype(np.float32) for s in shapes] for _ in range(4)]
    quantized = quantize(floats, samples, Settings(activations=DType.INT16))
    graph = run_passes(quantized.integers, LITERT)
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {DType.INT16}
    (host,) = compile_all([graph], LITERT)
    inputs = [random.integers(-32768, 32768, s).astype(np.int16) for s in shapes]
    for got, want in zip(host.run(inputs), run_outputs(graph, inputs, LITERT), strict=True):
        np.testing.assert_array_equal(got, want)
