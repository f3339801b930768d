"""Check that no file, however damaged or hostile, ends in anything but a ModelError."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import Builder, StoredTensor, write
from hostlib import STRICT, compile_c, sources_of

from tinydeploy.codegen import Provenance, generate
from tinydeploy.codegen.names import comment, identifier
from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes, read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_all
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers

LITERT = PROFILES["litert"]
SECONDS = 10.0  # to import a file; mostly milliseconds, but machines are shared
SECONDS_IN_ALL = 30.0  # for all stages: a mutant may be a large, but honest network
MEMORY = 256 << 20
WINDOW = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}


def convolutions() -> bytes:
    """Return convolution, depthwise convolution, residual sum, mean, dense layer and softmax."""
    random = np.random.default_rng(0)
    b = Builder()
    x = b.tensor((1, 6, 5, 3), scale=0.05, zero=-3)
    w = b.constant(random.integers(-9, 9, (4, 3, 3, 3)), "int8", [0.02] * 4)
    c = b.tensor((1, 6, 5, 4), scale=0.1, zero=4)
    b.operator("CONV_2D", [x, w, b.constant([1, 2, 3, 4], "int32", [0.001] * 4)], c, **WINDOW)
    d = b.tensor((1, 6, 5, 4), scale=0.1, zero=4)
    w = b.constant(random.integers(-9, 9, (1, 3, 3, 4)), "int8", [0.02] * 4, axis=3)
    b.operator("DEPTHWISE_CONV_2D", [c, w], d, DepthMultiplier=1, **WINDOW)
    s = b.tensor((1, 6, 5, 4), scale=0.2, zero=0)
    b.operator("ADD", [c, d], s)
    m = b.tensor((1, 4), scale=0.2, zero=0)
    b.operator("MEAN", [s, b.constant([1, 2])], m)
    f = b.tensor((1, 3), scale=0.1, zero=7)
    w = b.constant(random.integers(-9, 9, (3, 4)), "int8", 0.02)
    b.operator("FULLY_CONNECTED", [m, w, -1], f)
    y = b.tensor((1, 3), scale=1 / 256, zero=-128)
    b.operator("SOFTMAX", [f], y, Beta=1.0)
    return b.build([x], [y])


def reshapers() -> bytes:
    """Return float border, pad, pool, transpose, slice, concatenation, resize, reshape."""
    b = Builder()

    def same(shape: tuple[int, ...]) -> int:
        return b.tensor(shape, scale=0.05, zero=-3)

    x, q = b.tensor((1, 4, 4, 2), "float32", None), same((1, 4, 4, 2))
    b.operator("QUANTIZE", [x], q)
    p = same((1, 6, 5, 2))
    b.operator("PAD", [q, b.constant([[0, 0], [1, 1], [0, 1], [0, 0]])], p)
    a = same((1, 3, 2, 2))
    pool = {"StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2, "Padding": 1}
    b.operator("MAX_POOL_2D", [p], a, **pool)
    t = same((1, 2, 3, 2))
    b.operator("TRANSPOSE", [a, b.constant([0, 2, 1, 3])], t)
    s = same((1, 2, 2, 2))
    begin, end, stride = ([0, 0, 0, 0], [1, 2, 3, 2], [1, 1, 2, 1])
    b.operator("STRIDED_SLICE", [t, *(b.constant(v) for v in (begin, end, stride))], s)
    c = same((1, 2, 2, 4))
    b.operator("CONCATENATION", [s, s], c, Axis=3)
    r = same((1, 4, 4, 4))
    b.operator("RESIZE_NEAREST_NEIGHBOR", [c, b.constant([4, 4])], r)
    v = same((1, 64))
    b.operator("RESHAPE", [r, b.constant([1, -1])], v)
    g = b.tensor((1, 64), scale=1 / 256, zero=-128)
    b.operator("LOGISTIC", [v], g)
    y = b.tensor((1, 64), "float32", None)
    b.operator("DEQUANTIZE", [g], y)
    return b.build([x], [y])


VALID = {"convolutions": convolutions(), "reshapers": reshapers()}


def survive(content: bytes) -> Graph | None:
    """Import, rewrite, plan, generate and run a file; return the graph if it is accepted."""
    began = time.perf_counter()
    imported = began
    try:
        graph = read_bytes(content, "mutant")
        imported = time.perf_counter()
        graph = run_passes(graph, LITERT)
        plan = plan_layers(graph, "greedy")
        generate(graph, plan, LITERT, Provenance("mutant", "", "host", "test"))
        if sum(t.elements for t in graph.tensors) < 1 << 16:
            run_all(graph, [zeros(graph, i) for i in graph.inputs], LITERT)
    except ModelError as error:
        assert error.what
        graph = None
    assert imported - began < SECONDS
    assert time.perf_counter() - began < SECONDS_IN_ALL
    return graph


def zeros(graph: Graph, index: int) -> Any:
    return np.zeros(graph.tensors[index].shape, graph.tensors[index].dtype.numpy)


def refused(content: bytes, what: str = "") -> ModelError:
    """Import, rewrite and plan a file that must be refused."""
    with pytest.raises(ModelError, match=what or None) as caught:
        plan_layers(run_passes(read_bytes(content, "hostile"), LITERT), "greedy")
    return caught.value


@pytest.mark.parametrize("name", VALID)
def test_the_models_are_valid(name: str) -> None:
    assert survive(VALID[name]) is not None


@pytest.mark.parametrize("name", VALID)
def test_truncated_files(name: str) -> None:
    content = VALID[name]
    for length in (*range(0, 64), *range(64, len(content), 23)):
        survive(content[:length])


def mutants(name: str, kind: str, count: int) -> Iterator[bytes]:
    random = np.random.default_rng([len(name), len(kind)])
    content = np.frombuffer(VALID[name], np.uint8)
    interesting = [
        0,
        1,
        2,
        4,
        0x7F,
        0x80,
        0xFF,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        1 << 16,
        1 << 24,
    ]
    for _ in range(count):
        mutant = content.copy()
        if kind == "bytes":
            for _ in range(random.integers(1, 4)):
                mutant[random.integers(len(mutant))] = random.integers(256)
        elif kind == "bits":
            for _ in range(random.integers(1, 4)):
                mutant[random.integers(len(mutant))] ^= 1 << random.integers(8)
        else:
            at = 4 * random.integers(len(mutant) // 4)
            word = random.choice(interesting) if random.random() < 0.7 else random.integers(1 << 32)
            mutant[at : at + 4] = np.frombuffer(np.uint32(word).tobytes(), np.uint8)
        yield mutant.tobytes()


@pytest.mark.parametrize("kind", ["bytes", "bits", "words"])
@pytest.mark.parametrize("name", VALID)
def test_mutated_files(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    accepted = 0
    for mutant in mutants(name, kind, 10_000 if request.config.getoption("--slow") else 350):
        accepted += survive(mutant) is not None
    assert accepted > 0  # otherwise the later stages were never reached


def convolution(**changes: Any) -> bytes:
    """Return a small convolution with some of its parts replaced."""
    part: dict[str, Any] = {
        "shape": (1, 4, 4, 2), "dtype": "int8", "scale": 0.5, "zero": 0, "out_scale": 0.5,
        "weights": (3, 2, 2, 2), "weight_scale": [0.5] * 3, "axis": 0, "options": {},
        "bias": [1, 2, 3], "bias_dtype": "int32", "weight_zero": 0,
    } | changes  # fmt: skip
    b = Builder()
    x = b.tensor(part["shape"], part["dtype"], part["scale"], part["zero"])
    w = b.constant(np.ones(part["weights"]), "int8", part["weight_scale"], part["weight_zero"],
                   axis=part["axis"])  # fmt: skip
    y = b.tensor((1, 4, 4, 3), scale=part["out_scale"])
    inputs = [x, w, b.constant(part["bias"], part["bias_dtype"], 0.25)]
    b.operator("CONV_2D", inputs, y, **{**WINDOW, **part["options"]})
    return b.build([x], [y])


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (1 << 30, 1 << 30, 1 << 30, 2)}, {"shape": (1, 0, 4, 2)},
        {"shape": (1, -1, 4, 2)},
        {"shape": (-(2**31), 4, 4, 2)}, {"shape": ()}, {"shape": (1,) * 200}, {"shape": (4, 4, 2)},
        {"shape": (2, 4, 4, 2)}, {"shape": (1, 8191, 8191, 2)}, {"dtype": "uint8"},
        {"dtype": "int16"}, {"dtype": "float32"}, {"dtype": "int64"}, {"dtype": "string"},
        {"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"scale": float("inf")},
        {"scale": 1e-45}, {"scale": 3e38}, {"scale": None}, {"scale": [0.5, 0.25]},
        {"out_scale": 1e-30}, {"out_scale": float("nan")}, {"out_scale": 0.0},
        {"zero": 128}, {"zero": -129}, {"zero": 2**62}, {"weight_zero": 1},
        {"weight_scale": [0.5, 0.5]}, {"weight_scale": [0.5, 0.0, 0.5]}, {"weight_scale": None},
        {"weight_scale": [0.5, float("nan"), 0.5]}, {"axis": 3}, {"axis": -7}, {"axis": 99},
        {"weights": (3, 2, 2, 5)}, {"weights": (3, 2, 2)}, {"weights": (3, 5, 5, 2)},
        {"bias": [1, 2]}, {"bias_dtype": "int64"}, {"bias_dtype": "int8"},
        {"options": {"StrideH": 0}}, {"options": {"StrideW": -1}},
        {"options": {"StrideH": 2**31 - 1}}, {"options": {"DilationHFactor": 0}},
        {"options": {"DilationWFactor": 1 << 21}},
        {"options": {"DilationHFactor": 1 << 14, "DilationWFactor": 1 << 14}},
        {"options": {"Padding": 2}}, {"options": {"Padding": -1}},
        {"options": {"FusedActivationFunction": 9}}, {"options": {"FusedActivationFunction": 5}},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_convolutions(changes: dict[str, Any]) -> None:
    if changes == {"weights": (3, 5, 5, 2)}:
        changes = {**changes, "options": {"Padding": 1}}  # VALID, larger than the image
    began = time.perf_counter()
    refused(convolution(**changes))
    assert time.perf_counter() - began < SECONDS


def test_the_plain_convolution_is_accepted() -> None:
    assert survive(convolution()) is not None


def unary(
    op: str,
    shape: tuple[int, ...],
    extra: list[Any],
    out: tuple[int, ...] | None = None,
    **options: Any,
) -> bytes:
    """Return a model of one operator with constant further inputs."""
    b = Builder()
    x, y = b.tensor(shape), b.tensor(out or shape)
    b.operator(op, [x, *(b.constant(e) for e in extra)], y, **options)
    return b.build([x], [y])


@pytest.mark.parametrize(
    ("op", "shape", "extra", "options"),
    [
        ("PAD", (1, 4, 4, 1), [[[0, 0], [2**30, 2**30], [0, 0], [0, 0]]], {}),
        ("PAD", (1, 4, 4, 1), [[[0, 0], [-1, 0], [0, 0], [0, 0]]], {}),
        ("PAD", (1, 4, 4, 1), [[[0, 0], [1, 1]]], {}),
        ("PAD", (1, 4, 4, 1), [[1, 1, 1, 1]], {}),
        ("PAD", (1, 4, 4, 1), [[[0, 0], [1 << 20, 0], [1 << 20, 0], [0, 0]]], {}),
        ("PAD", (1, 4, 4, 1), [], {}),
        ("PAD", (1, 1, 4, 4, 1), [[[0, 0]] * 5], {}),
        ("RESHAPE", (4, 4), [[-1, -1]], {}),
        ("RESHAPE", (4, 4), [[3, -1]], {}),
        ("RESHAPE", (4, 4), [[0, -1]], {}),
        ("RESHAPE", (4, 4), [[2**31 - 1, 2**31 - 1]], {}),
        ("TRANSPOSE", (4, 4), [[0, 0]], {}),
        ("TRANSPOSE", (4, 4), [[0, 5]], {}),
        ("TRANSPOSE", (4, 4), [[0]], {}),
        ("MEAN", (4, 4), [[7]], {}),
        ("MEAN", (4, 4), [], {}),
        ("MEAN", (1, 4096, 1025, 1), [[1, 2]], {}),
        ("MEAN", (2, 3, 2, 3, 2), [[0, 2, 4]], {}),
        ("STRIDED_SLICE", (4, 4), [[0, 0], [4, 4], [0, 1]], {}),
        ("STRIDED_SLICE", (4, 4), [[0, 0], [4, 4]], {}),
        ("STRIDED_SLICE", (4, 4), [[3, 0], [1, 4], [1, 1]], {}),
        ("STRIDED_SLICE", (4, 4), [[9, 0], [4, 4], [1, 1]], {"ShrinkAxisMask": 1}),
        ("STRIDED_SLICE", (4, 4), [[0, 0, 0], [4, 4, 4], [1, 1, 1]], {}),
        ("STRIDED_SLICE", (4, 4), [[0], [4, 4], [1]], {}),
        ("STRIDED_SLICE", (4, 4), [[0, 0], [4, 4], [1, 1]], {"EllipsisMask": 1}),
        ("STRIDED_SLICE", (4, 4), [[0, 0], [4, 4], [1, 1]], {"NewAxisMask": 1}),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 4, 4, 1), [[0, 4]], {}),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 4, 4, 1), [[60000, 60000]], {}),
        ("RESIZE_NEAREST_NEIGHBOR", (1, 4, 4, 1), [[4]], {}),
        ("CONCATENATION", (4, 4), [], {"Axis": 2}),
        ("SOFTMAX", (4, 4), [], {"Beta": -1.0}),
        ("SOFTMAX", (4, 4), [], {"Beta": float("nan")}),
        ("SOFTMAX", (1, 5000), [], {"Beta": 1.0}),
        ("LOGISTIC", (4, 4), [], {}),
        ("LEAKY_RELU", (4, 4), [], {"Alpha": float("nan")}),
        ("LEAKY_RELU", (4, 4), [], {"Alpha": -1e30}),
        ("PRELU", (4, 4), [], {}),
        ("PRELU", (4, 4), [[1, 2, 3, 4]], {}),
        ("TANH", (4, 4), [], {}),
        ("ADD", (4, 4), [], {}),
        ("MUL", (4, 4), [], {}),
        ("MAX_POOL_2D", (1, 4, 4, 1), [],
         {"StrideH": 0, "StrideW": 1, "FilterHeight": 1, "FilterWidth": 1}),
        ("MAX_POOL_2D", (1, 4, 4, 1), [],
         {"StrideH": 1, "StrideW": 1, "FilterHeight": 0, "FilterWidth": 1}),
        ("AVERAGE_POOL_2D", (1, 4, 4, 1), [],
         {"StrideH": 1, "StrideW": 1, "FilterHeight": 1 << 20, "FilterWidth": 1 << 20}),
        ("FULLY_CONNECTED", (1, 4), [], {}),
        ("CONV_2D", (1, 4, 4, 1), [], {}),
    ],
)  # fmt: skip
def test_absurd_operators(
    op: str, shape: tuple[int, ...], extra: list[Any], options: dict[str, Any]
) -> None:
    began = time.perf_counter()
    refused(unary(op, shape, extra, **options))
    assert time.perf_counter() - began < SECONDS


@pytest.mark.parametrize("op", ["HARD_SWISH", "RELU", "LEAKY_RELU", "ABS", "RSQRT"])
@pytest.mark.parametrize("scales", [(2.0**60, 2.0**-60), (2.0**60, 2.0**60)])
def test_scales_without_multiplier(op: str, scales: tuple[float, float]) -> None:
    b = Builder()
    x, y = b.tensor((4, 4), scale=scales[0]), b.tensor((4, 4), scale=scales[1])
    b.operator(op, [x], y)
    content = b.build([x], [y])
    if scales[0] > scales[1] or op in ("HARD_SWISH", "RSQRT"):
        refused(content)
    else:
        assert survive(content) is not None


def chain(
    edges: list[tuple[list[int], list[int]]], tensors: int, ins: list[int], outs: list[int]
) -> bytes:
    """Return sums of [1, 4] tensors wired as told."""
    b = Builder()
    for _ in range(tensors):
        b.tensor((1, 4))
    for inputs, outputs in edges:
        b.operator("ADD", inputs, outputs)
    return b.build(ins, outs)


@pytest.mark.parametrize(
    ("edges", "tensors", "ins", "outs"),
    [
        ([([0, 2], [1]), ([1, 1], [2])], 3, [0], [2]),  # a cycle
        ([([1, 1], [1])], 2, [0], [1]),  # a node feeds itself
        ([([0, 0], [1]), ([0, 0], [1])], 2, [0], [1]),  # written twice
        ([([0, 0], [0])], 1, [0], [0]),  # an input written
        ([([0, 0], [1, 1])], 2, [0], [1]),  # two outputs
        ([([0, 0], [1])], 2, [0], [2]),  # no such output
        ([([0, 0], [1])], 3, [0], [2]),  # an output nobody produces
        ([([0, 7], [1])], 2, [0], [1]),
        ([([0, -5], [1])], 2, [0], [1]),
        ([([0, -1], [1])], 2, [0], [1]),  # a required input left out
        ([([-1, 0], [1])], 2, [0], [1]),
        ([([0], [1])], 2, [0], [1]),
        ([([0, 0], [-1])], 2, [0], [1]),
        ([([], [1])], 2, [0], [1]),
        ([([0, 0], [])], 2, [0], [0]),
        ([([0, 0], [1])], 2, [], [1]),
        ([([0, 0], [1])], 2, [0], []),
        ([([0, 0], [1])], 2, [-1], [1]),
        ([([0, 0], [1])], 2, [0], [-1]),
        ([([0, 0], [1])], 2, [0, 0], [1]),  # the same input twice
    ],
)  # fmt: skip
def test_absurd_wirings(
    edges: list[tuple[list[int], list[int]]], tensors: int, ins: list[int], outs: list[int]
) -> None:
    refused(chain(edges, tensors, ins, outs))


def test_duplicate_outputs_and_passed_through_inputs_are_fine() -> None:
    assert survive(chain([([0, 0], [1])], 2, [0], [1, 1])) is not None
    assert survive(chain([([0, 0], [1])], 2, [0], [1, 0])) is not None
    assert survive(chain([], 1, [0], [0])) is not None


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "int16", "bool"])
def test_unused_inputs_and_passed_tensors_of_other_types_are_refused(dtype: str) -> None:
    b = Builder()
    x, y = b.tensor((1, 4)), b.tensor((1, 4))
    other = b.tensor((1, 4), dtype, None)
    b.operator("ADD", [x, x], y)
    refused(b.build([x, other], [y]))
    refused(b.build([x, other], [y, other]))


@pytest.mark.parametrize("data", [None, [1, 2, 3, 4]])
def test_graph_inputs_and_outputs_need_int8_quantisation(data: Any) -> None:
    b = Builder()
    x, y = b.tensor((4,)), b.tensor((4,))
    odd = b.tensor((4,), scale=None, data=data)
    b.operator("ADD", [x, x], y)
    refused(b.build([x, odd], [y]))
    refused(b.build([x], [y, odd]))


def test_constants_are_not_inputs_or_outputs() -> None:
    b = Builder()
    x, y = b.tensor((4,)), b.tensor((4,))
    c = b.tensor((4,), data=[1, 2, 3, 4])
    b.operator("ADD", [x, c], y)
    assert survive(b.build([x], [y])) is not None
    refused(b.build([x, c], [y]))
    refused(b.build([x], [y, c]))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int16", "float32", "int64", "bool"])
@pytest.mark.parametrize("op", ["ADD", "MUL", "CONCATENATION"])
def test_constant_operands_must_be_int8(op: str, dtype: str) -> None:
    b = Builder()
    x, y = b.tensor((4,)), b.tensor((8,) if op == "CONCATENATION" else (4,))
    c = b.tensor((4,), dtype, data=[1, 0, 1, 0])
    b.operator(op, [x, c], y)
    refused(b.build([x], [y]))


def test_constant_operands_need_one_scale() -> None:
    for scale in (None, [0.5] * 4):
        b = Builder()
        x, y = b.tensor((4,)), b.tensor((4,))
        c = b.tensor((4,), scale=scale, data=[1, 2, 3, 4])
        b.operator("ADD", [x, c], y)
        refused(b.build([x], [y]))


@pytest.mark.parametrize("scale", [None, 0.5])
def test_constants_are_not_written(scale: float | None) -> None:
    b = Builder()
    x, y = b.tensor((4,)), b.tensor((4,), scale=scale, data=[1, 2, 3, 4])
    b.operator("RESHAPE", [x, b.constant([4])], y)
    refused(b.build([x], [y]), "constant")


@pytest.mark.parametrize("length", [0, 1, 47, 49, 4000])
def test_constants_of_the_wrong_size(length: int) -> None:
    b = Builder()
    x, y = b.tensor((1, 12)), b.tensor((1, 4))
    w = b.tensor((4, 12), scale=0.5)
    data = np.zeros(length, np.int8)
    b.tensors[w] = StoredTensor("w", (4, 12), "int8", (0.5,), (0,), 0, data, False)
    b.operator("FULLY_CONNECTED", [x, w], y)
    refused(b.build([x], [y]))


def test_variables_and_odd_operators_are_named() -> None:
    b = Builder()
    x, y = b.tensor((4,)), b.tensor((4,))
    state = b.tensor((4,), variable=True)
    b.operator("ADD", [x, state], y)
    assert "state" in refused(b.build([x], [y])).what
    for code, custom, said in (
        (32, "Evil\n*/op", "Evil"),
        (126, None, "126|[A-Z]"),
        (9999, None, "9999"),
    ):
        b = Builder()
        x, y = b.tensor((4,)), b.tensor((4,))
        b.operator("ADD", [x, x], y, code=code, custom=custom)
        error = refused(b.build([x], [y]))
        assert "\n" not in error.why and "operators" in error.what, said


def test_other_schema_versions_are_refused() -> None:
    b = Builder()
    x = b.tensor((4,))
    for version in (0, 2, 4):
        refused(write(b.tensors, b.operators, [x], [x], version=version), "version")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 7, b"\0" * 64, b"\0\0\0\0TFL3",
                                     b"\xff" * 4 + b"TFL3" + b"\xff" * 64,
                                     b"PK\3\4" + b"\0" * 99])  # fmt: skip
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_file(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.tflite", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(ModelError):
            read_file(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tflite")
    began = time.perf_counter()
    with pytest.raises(ModelError):
        read_file(tmp_path / "pipe.tflite")
    assert time.perf_counter() - began < SECONDS


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    with pytest.raises(ModelError, match="too large"):
        read_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


MEMORY_CASES: dict[str, Callable[[], bytes]] = {
    "dilation": lambda: convolution(
        options={"DilationHFactor": 1 << 14, "DilationWFactor": 1 << 14}
    ),
    "shape": lambda: convolution(shape=(1, 1 << 13, 1 << 13, 1), weights=(3, 2, 2, 1)),
    "pad": lambda: unary("PAD", (1, 4, 4, 1), [[[0, 0], [9000, 0], [9000, 0], [0, 0]]]),
    "resize": lambda: unary("RESIZE_NEAREST_NEIGHBOR", (1, 1, 1, 1), [[16384, 16384]]),
}


@pytest.mark.parametrize("case", MEMORY_CASES)
def test_memory_stays_small(case: str, tmp_path: Path) -> None:
    """Import under a limit on the address space, in a process of its own."""
    path = tmp_path / "model.tflite"
    path.write_bytes(MEMORY_CASES[case]())
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from tinydeploy.errors import ModelError\n"
        "from tinydeploy.importers.tflite import read_file\n"
        "from tinydeploy.numerics.profile import PROFILES\n"
        "from tinydeploy.passes import run_passes\n"
        "import tinydeploy.codegen, tflite\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {MEMORY},) * 2)\n"
        "try:\n    run_passes(read_file(Path(sys.argv[1])), PROFILES['litert'])\n"
        "except ModelError as error:\n    assert 'MemoryError' not in error.why\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


NAMES = [
    "", " ", "line\nbreak", 'quote"', "*/ int evil; /*", "*\\/", "*\\", "/*", "\\", "back\\slash",
    "??/", "???/", "?????/", "??)", "é?/", "Zürich 🚲", "int", "a" * 500, "td_fixedpoint",
    "td_rows",
    "stdint", "stddef", "firmware_model", "td_firmware", "1st", "___", "%s%n", "{{ 7 * 7 }}",
    "{% x %}",
    "\x00nul", "\u2028", "..", "../../etc/passwd", "CON", "*/\x0a#error",
]  # fmt: skip


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hostile_names_compile(compiler: str, tmp_path: Path) -> None:
    """Every name as model, tensor and node name at once; trigraphs are on in strict C99."""
    for k, name in enumerate(NAMES):
        b = Builder()
        x = b.tensor((1, 4), name=name.encode())
        y = b.tensor((1, 4), name=(name + "\\").encode())
        b.operator("ADD", [x, x], y)
        graph = run_passes(read_bytes(b.build([x], [y]), name), LITERT)
        folder = tmp_path / str(k)
        tree = generate(
            graph, plan_layers(graph, "greedy"), LITERT, Provenance(name, "", name, name)
        ).sources
        assert len(tree) == 8, name  # no file took the name of another
        tree.write(folder)
        stem = identifier(name)
        (folder / "main.c").write_text(
            f'#include "{stem}.c"\n#include "{stem}_weights.c"\nint main(void)\n'
            f"{{ static uint32_t arena[({stem.upper()}_ARENA_BYTES + 3) / 4];\n"
            f"  return {stem}_init(arena, sizeof arena); }}\n"
        )
        compile_c([folder / "main.c"], folder / "a.out", ["-trigraphs", *STRICT], compiler)
        assert subprocess.run([folder / "a.out"], timeout=10, check=False).returncode == 0
        for path in tree:
            assert tree[path].isascii(), (name, path)
            assert "/" not in path and ".." not in path


@pytest.mark.parametrize("text", NAMES)
def test_names_become_safe(text: str) -> None:
    for limit in range(1, 24):
        safe = comment(text, limit)
        assert safe.isascii() and safe.isprintable()
        assert not any(bad in safe for bad in ("*/", "/*", "\\", "??"))
    name = identifier(text)
    assert name.isidentifier() and name.isascii() and name == name.lower() and len(name) <= 48


def test_random_comments_are_safe() -> None:
    random = np.random.default_rng(0)
    for _ in range(5000):
        text = "".join(random.choice(list("*/\\?a\né"), random.integers(0, 12)))
        safe = comment(text)
        assert not any(bad in safe for bad in ("*/", "/*", "\\", "??")), text


def test_undecodable_file_names(tmp_path: Path) -> None:
    path = tmp_path / "bad\udcff\udc80name.tflite"
    path.write_bytes(VALID["convolutions"])
    graph = run_passes(read_file(path), LITERT)
    assert graph.name.isascii()
    assert graph.digest()
    sources_of(graph, plan_layers(graph, "greedy"), LITERT)
