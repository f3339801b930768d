"""Check every registered operator: LiteRT == reference == generated C, rows, shapes, canaries.

An operator needs nothing here but a module of its name in op_models/.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hostlib import SANITIZE, compile_all
from numpy.random import Generator
from numpy.typing import NDArray
from op_models import _draw as draw
from op_models import softmax
from op_models._draw import read_bytes

from tinydeploy.codegen.render import render
from tinydeploy.ir import Graph, Tensor
from tinydeploy.numerics.fixedpoint import dequantize
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named, registry
from tinydeploy.ops.execute import run_all, run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.verify.litert import LiteRt

Array = NDArray[Any]
OPERATORS = sorted(registry())
DRAWN = 25  # random models per round
ROUNDS, SLOW_ROUNDS = 1, 20


def models_of(op: str) -> ModuleType:
    return importlib.import_module(f"op_models.{op.lower()}")


def samples(random: Generator, tensor: Tensor) -> list[Array]:
    """Return random values, extremes only, and one value throughout."""
    (low, high), shape, kind = tensor.dtype.bounds, tensor.shape, tensor.dtype.numpy
    extremes = random.choice([low, high], shape)
    return [
        random.integers(low, high + 1, shape).astype(kind),
        extremes.astype(kind),
        np.full(shape, random.integers(low, high + 1), kind),
    ]


def inputs_of(random: Generator, graph: Graph) -> list[list[Array]]:
    """Return several sets of inputs, as integers."""
    per_input = [samples(random, graph.tensors[i]) for i in graph.inputs]
    return [list(group) for group in zip(*per_input, strict=True)]


def litert_runs(graph: Graph, inputs: list[Array]) -> bool:
    """Tell whether LiteRT survives the inputs; its SOFTMAX stops the process for some."""
    for node in graph.nodes:
        if node.op == "SOFTMAX":
            tensor = graph.tensors[graph.inputs[0]]
            if not softmax.litert_runs(inputs[0], tensor.scale, node.attributes.beta):
                return False
    return True


def check_against_litert(model: draw.Model, graph: Graph, sets: list[list[Array]]) -> None:
    """Compare every output of the reference with LiteRT's, values and shapes."""
    if not model.litert:
        return
    litert = LiteRt(model.content)
    for inputs in sets:
        if not litert_runs(graph, inputs):
            continue
        values = run_all(graph, inputs, PROFILES["litert"])
        given = [
            dequantize(x, graph.tensors[i].scale, graph.tensors[i].zero_point)
            if slot in graph.float_inputs
            else x
            for slot, (x, i) in enumerate(zip(inputs, graph.inputs, strict=True))
        ]
        for slot, (i, want) in enumerate(zip(graph.outputs, litert.run(given), strict=True)):
            got = values[i]
            if slot in graph.float_outputs:
                got = dequantize(got, graph.tensors[i].scale, graph.tensors[i].zero_point)
            np.testing.assert_array_equal(got, want, f"{model.text}: reference and LiteRT")


def check_shapes(model: draw.Model, graph: Graph, inputs: list[Array]) -> None:
    """Compare the inferred shape of every tensor with the reference's arrays."""
    for tensor, value in zip(
        graph.tensors, run_all(graph, inputs, PROFILES["litert"]), strict=True
    ):
        assert value.shape == tensor.shape, model.text
        assert value.dtype == tensor.dtype.numpy, model.text


def check_passes(model: draw.Model, graph: Graph, sets: list[list[Array]]) -> None:
    """Compare the outputs of the graph with those of the optimised one."""
    for profile in PROFILES.values():
        optimised = run_passes(read_bytes(model.content, "m"), profile)
        for inputs in sets:
            pairs = zip(
                run_outputs(graph, inputs, profile), run_outputs(optimised, inputs, profile),
                strict=True,
            )  # fmt: skip
            assert all(np.array_equal(a, b) for a, b in pairs), f"{model.text}: optimised"


def check_rows(random: Generator, model: draw.Model, graph: Graph, inputs: list[Array]) -> None:
    """Overwrite the input rows that `region` does not name: the output row must not change."""
    profile = PROFILES["litert"]
    for node in graph.nodes:
        op, call = op_named(node.op), Call(graph, node)
        sources = op.region(call)
        if sources is None:
            continue
        values = run_all(graph, inputs, profile)
        count = op.rows(call)
        whole = values[node.outputs[0]].reshape(count, -1)
        for y in random.permutation(count)[:4]:
            needed: dict[int, set[int]] = {}
            for source in sources:
                index = node.inputs[source.input]
                assert index is not None
                rows = {r for r in source.rows(int(y)) if 0 <= r < graph.tensors[index].rows}
                needed.setdefault(index, set()).update(rows)
            disturbed = []
            for i, x in zip(node.inputs, (None if i is None else values[i] for i in node.inputs),
                            strict=True):  # fmt: skip
                if i in needed and not graph.tensors[i].constant:
                    rows_of_input = x.reshape(graph.tensors[i].rows, -1).copy()
                    for r in set(range(len(rows_of_input))) - needed[i]:
                        noise = np.random.default_rng(r)  # the same tensor read twice agrees
                        rows_of_input[r] = noise.integers(-128, 128, rows_of_input.shape[1])
                    x = rows_of_input.reshape(x.shape)
                disturbed.append(np.zeros(0, np.int8) if x is None else x)
            out = op.reference(call, disturbed, profile)[0].reshape(count, -1)
            np.testing.assert_array_equal(out[y], whole[y], f"{model.text}: row {y}")


def check_all(op: str, models: list[draw.Model], seed: int, capfd: Any) -> None:
    """Run all checks on models of one operator."""
    random = np.random.default_rng(seed)
    sets: list[list[list[Array]]] = []
    for k, model in enumerate(models):
        imported = read_bytes(model.content, f"m{k}")
        assert op in {n.op for n in imported.nodes}, model.text
        graph = run_passes(imported, PROFILES["litert"], optimise=False)
        sets.append(inputs_of(random, graph))
        check_against_litert(model, graph, sets[k])
        check_shapes(model, graph, sets[k][0])
        check_rows(random, model, graph, sets[k][0])
        check_passes(model, graph, sets[k])
    for profile in PROFILES.values():
        graphs = [run_passes(read_bytes(m.content, f"m{k}"), profile) for k, m in enumerate(models)]
        compiled = compile_all(graphs, profile, flags=SANITIZE)
        for model, graph, host, group in zip(models, graphs, compiled, sets, strict=True):
            for inputs in group:
                values = run_all(graph, inputs, profile)
                for index, got in zip(graph.outputs, host.run(inputs), strict=True):
                    np.testing.assert_array_equal(
                        got, values[index], f"{model.text}: C and reference, {profile.name}"
                    )
    said = capfd.readouterr().err
    assert "runtime error" not in said, said[:2000]


@pytest.mark.parametrize("op", OPERATORS)
def test_chosen_models(op: str, capfd: Any) -> None:
    models = list(models_of(op).fixed())
    assert models
    check_all(op, models, 0, capfd)


def _rounds() -> list[Any]:
    every = [
        (op, seed, getattr(models_of(op), "ROUNDS", ROUNDS))
        for op in OPERATORS
        for seed in range(SLOW_ROUNDS)
    ]
    return [
        pytest.param(op, seed, marks=[pytest.mark.slow] if seed >= rounds else [])
        for op, seed, rounds in every
    ]


@pytest.mark.parametrize(("op", "seed"), _rounds())
def test_random_models(op: str, seed: int, capfd: Any) -> None:
    random = np.random.default_rng([seed, OPERATORS.index(op)])
    check_all(op, [models_of(op).drawn(random) for _ in range(DRAWN)], seed, capfd)


def test_every_operator_has_models() -> None:
    missing = [
        op for op in OPERATORS if importlib.util.find_spec(f"op_models.{op.lower()}") is None
    ]
    assert not missing


@pytest.mark.parametrize("op", [op for op in OPERATORS if registry()[op].kernels])
def test_parameters_mirror_the_c_struct(op: str) -> None:
    """The fields of the Params dataclass are those of the C struct, in order and of its types."""
    portable = registry()[op].kernels[-1]
    text = render(f"ops/{portable.template}.c.j2", function=portable.function)
    fields = struct_fields(text, f"{portable.function}_params")
    for model in models_of(op).fixed():
        graph = run_passes(read_bytes(model.content, "m"), PROFILES["litert"], optimise=False)
        call = Call(graph, next(n for n in graph.nodes if n.op == op))
        params = registry()[op].params(call, PROFILES["litert"])
        assert [f.name for f in dataclasses.fields(params)] == [name for name, _ in fields]
        for name, kind in fields:
            value = getattr(params, name)
            if isinstance(value, np.ndarray):
                assert kind == f"const {value.dtype.name}_t *", name
            else:
                assert kind == "int32_t" and -(2**31) <= int(value) < 2**31, name


def struct_fields(text: str, name: str) -> list[tuple[str, str]]:
    """Return (field, type) of a C struct, pointers as `const int8_t *`."""
    clean = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = re.search(r"typedef struct \{([^}]*)\} " + re.escape(name) + ";", clean)
    assert found, f"no struct {name}"
    fields = []
    for declaration in found[1].split(";"):
        if not declaration.strip():
            continue
        kind, names = re.fullmatch(r"\s*((?:const )?\w+)\s+(.*)", declaration, re.S).groups()
        for one in names.split(","):
            pointer = one.strip().startswith("*")
            fields.append((one.strip().lstrip("*"), f"{kind} *" if pointer else kind))
    return fields
