"""Compare what an operator means on floats with what its integers stand for."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes, read_file
from tinydeploy.ir import DType, Graph, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.fixedpoint import dequantize
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import op_named, registry
from tinydeploy.ops.execute import run_floats, run_outputs
from tinydeploy.verify.litert import LiteRt

Array = NDArray[Any]
ROOT = Path(__file__).parents[2]
MODELS_PER_OPERATOR = 12
MEANINGFUL = [name for name in sorted(registry()) if op_named(name).float_reference]


def real(tensor: Tensor) -> Tensor:
    """Return a tensor of integers as one of the real numbers they stand for."""
    q = tensor.quantization
    if q is None or tensor.dtype is DType.FLOAT32:
        return tensor
    data = tensor.data
    if data is not None:
        shape = [1] * len(tensor.shape)
        if q.per_channel:
            shape[q.axis] = len(q.scales)
        data = constant(
            (data.astype(np.float64) - q.zero_point * (not q.per_channel))
            * np.array(q.scales, np.float64).reshape(shape)
        ).astype(np.float32)
    return replace(tensor, dtype=DType.FLOAT32, quantization=None, data=data)


def in_float(graph: Graph) -> Graph:
    return graph.replace(tensors=tuple(real(t) for t in graph.tensors))


@pytest.mark.parametrize("name", MEANINGFUL)
def test_integers_approximate_floats(name: str) -> None:
    """Within two and a half steps of the output, once clipped to what its integers can say.

    Without -128: LiteRT's NEG keeps it.
    """
    drawn = importlib.import_module(f"op_models.{name.lower()}").drawn
    random = np.random.default_rng(sum(map(ord, name)))
    compared = 0
    for _ in range(MODELS_PER_OPERATOR):
        model = drawn(random)
        try:
            graph = read_bytes(model.content, "m")
        except ModelError:  # a scale drawn at the very edge of what is accepted
            continue
        compared += 1
        if any(t.dtype is not DType.INT8 for t in (graph.tensors[i] for i in graph.inputs)):
            continue
        inputs = [
            random.integers(-127, 128, graph.tensors[i].shape).astype(np.int8) for i in graph.inputs
        ]
        given = [
            dequantize(x, graph.tensors[i].scale, graph.tensors[i].zero_point)
            for x, i in zip(inputs, graph.inputs, strict=True)
        ]
        stored = run_outputs(graph, inputs, PROFILES["litert"])
        exact = run_floats(in_float(graph), given)
        for o, got in zip(graph.outputs, stored, strict=True):
            out = graph.tensors[o]
            if out.dtype is not DType.INT8:
                continue
            low, high = ((v - out.zero_point) * out.scale for v in (-128, 127))
            want = np.clip(np.nan_to_num(exact[o], nan=-np.inf), low, high)
            error = np.abs(dequantize(got, out.scale, out.zero_point) - want) / out.scale
            assert error.max() < 2.5, f"{model.text}: {error.max():.2f} steps"
    assert compared > MODELS_PER_OPERATOR // 2


def test_a_float_network_computes_what_litert_computes() -> None:
    path = ROOT / "examples" / "digits" / "digits_float.tflite"
    graph = read_file(path)
    images = np.load(ROOT / "examples" / "digits" / "digits_test.npz")["float0"][:5]
    litert = LiteRt(path.read_bytes())
    for image in images:
        own = run_floats(graph, [image[None]])[graph.outputs[0]]
        np.testing.assert_allclose(own, litert.run([image[None]])[0], rtol=1e-4, atol=1e-6)
