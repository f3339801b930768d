"""Functions of one int8 value: every stored value against LiteRT, and against real functions."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from op_models import _draw as draw

from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph
from tinydeploy.numerics.fixedpoint import dequantize
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.execute import run_outputs
from tinydeploy.verify.litert import LiteRt

EVERY = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16)
FUNCTIONS = [
    "ABS", "COS", "ELU", "EXP", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "NEG", "PRELU", "RELU",
    "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "RSQRT", "SIN", "SQRT", "SQUARE", "TANH",
]  # fmt: skip
WITHOUT_REFERENCE_KERNEL = ("ELU", "SIN", "COS", "SQUARE")


def drawn(op: str, count: int) -> list[draw.Model]:
    random = np.random.default_rng(FUNCTIONS.index(op))
    module = importlib.import_module(f"op_models.{op.lower()}")
    return [module.drawn(random) for _ in range(count)]


def table(graph: Graph, profile: str = "litert") -> np.ndarray:
    return run_outputs(graph, [EVERY], PROFILES[profile])[0]


@pytest.mark.parametrize("op", [f for f in FUNCTIONS if f not in WITHOUT_REFERENCE_KERNEL])
def test_every_value_is_that_of_litert(op: str) -> None:
    for model in drawn(op, 25):
        graph = read_bytes(model.content, "m")
        np.testing.assert_array_equal(table(graph), LiteRt(model.content).run([EVERY])[0])


def test_elu_is_that_of_the_optimised_kernel() -> None:
    """LiteRT registers ELU only there; it fills a table all the same."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    for model in drawn("ELU", 25):
        litert = Interpreter(
            model_content=model.content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        litert.allocate_tensors()
        litert.set_tensor(litert.get_input_details()[0]["index"], EVERY)
        litert.invoke()
        wanted = litert.get_tensor(litert.get_output_details()[0]["index"])
        np.testing.assert_array_equal(table(read_bytes(model.content, "m")), wanted)


@pytest.mark.parametrize("op", FUNCTIONS)
def test_tables_are_close_to_what_the_operator_means_on_floats(op: str) -> None:
    compared = 0
    for model, profile in zip(drawn(op, 12), itertools.cycle(PROFILES), strict=False):
        graph = read_bytes(model.content, "m")
        inp, out = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
        call = Call(graph, graph.nodes[0])
        values = dequantize(EVERY, inp.scale, inp.zero_point)
        if call.has_input(1):
            alpha = call.input(1)
            real = np.where(values < 0, dequantize(alpha.data, alpha.scale, alpha.zero_point), 1)
            real = real * values
        else:
            real = op_named(op).float_reference(call, [values])[0]
        with np.errstate(all="ignore"):
            exact = np.clip(real.astype(np.float64) / out.scale + out.zero_point, -128, 127)
        got = table(graph, profile).astype(np.float64)
        inside = np.isfinite(exact) & ((values > 0) | (op not in ("LOG", "SQRT", "RSQRT")))
        inside &= (EVERY != -128) | (op != "NEG")  # it wraps
        # HARD_SWISH works with 16 bits, whose error an extreme ratio of scales enlarges.
        most = 0.5 + 0.6 * max(1.0, inp.scale / out.scale) if op == "HARD_SWISH" else 1.01
        assert np.all(np.abs(exact - got)[inside] <= most), model.text
        compared += int(inside.sum())
    assert compared > 256
