"""Make small models with absurd parts; check that a file is refused or survived by all stages."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from builder import Builder

from tinydeploy.codegen import Provenance, generate
from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_all
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers

LITERT = PROFILES["litert"]
SECONDS = 10.0  # to import a file; mostly milliseconds, but machines are shared
SECONDS_IN_ALL = 30.0  # for all stages: a mutant may be a large, but honest network
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
