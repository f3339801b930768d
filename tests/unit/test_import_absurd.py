"""Check that files whose parts make no sense together are refused, and odd but sound ones not."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from builder import Builder, StoredTensor, write
from hostile import SECONDS, convolution, refused, survive, unary


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
