"""Memory plans for TensorFlow Lite Micro: copies of model files that carry them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tflite
from builder import Builder
from commands import tinydeploy
from networks import residual_network as tiny_network

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.plan.tflm import plan_for_tflm, read_metadata, with_metadata
from tinydeploy.verify.litert import LiteRt

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
MODELS = os.environ.get("TINYDEPLOY_MODELS", "")


def simulate(data: bytes, offsets: tuple[int, ...]) -> int:
    """Walk the file as TFLM does, on bytes: an operator's output must not hit what is needed.

    Returns the bytes of arena touched. Independent of the planner's lifetimes: it looks ahead
    for readers.
    """
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    sizes = {tflite.TensorType.INT8: 1, tflite.TensorType.FLOAT32: 4, tflite.TensorType.INT32: 4}
    outputs = {graph.Outputs(k) for k in range(graph.OutputsLength())}
    arena = np.full(max(offsets) + (1 << 20), -1)
    top = 0

    def write(i: int) -> None:
        nonlocal top
        t = graph.Tensors(i)
        size = sizes[t.Type()] * int(np.prod([t.Shape(k) for k in range(t.ShapeLength())]))
        assert offsets[i] >= 0 and offsets[i] % 16 == 0
        arena[offsets[i] : offsets[i] + size] = i
        places[i] = (offsets[i], size)
        top = max(top, offsets[i] + size)

    places: dict[int, tuple[int, int]] = {}
    for k in range(graph.InputsLength()):
        write(graph.Inputs(k))
    for step in range(graph.OperatorsLength()):
        operator = graph.Operators(step)
        for k in range(operator.OutputsLength()):
            write(operator.Outputs(k))
        # While the kernel runs, all it reads and writes must be whole.
        for i in [*map(operator.Inputs, range(operator.InputsLength())),
                  *map(operator.Outputs, range(operator.OutputsLength()))]:  # fmt: skip
            if i in places:
                at, size = places[i]
                assert (arena[at : at + size] == i).all(), f"tensor {i} is damaged at {step}"
            elif i >= 0:
                assert offsets[i] == -1, "a constant was placed"
    for i in outputs:
        at, size = places[i]
        assert (arena[at : at + size] == i).all()
    return top


def same_results(before: bytes, after: bytes) -> None:
    graph, copy = read_bytes(before, "x"), read_bytes(after, "x")
    assert [n.op for n in graph.nodes] == [n.op for n in copy.nodes]
    for a, b in zip(graph.tensors, copy.tensors, strict=True):
        assert (a.name, a.shape, a.quantization) == (b.name, b.shape, b.quantization)
        if a.data is not None:
            np.testing.assert_array_equal(a.data, b.data)
    random = np.random.default_rng(0)
    inputs = []
    for i in graph.inputs:
        t = graph.tensors[i]
        if t.dtype.value == "float32":
            inputs.append(random.random(t.shape, np.float32))
        else:
            inputs.append(random.integers(-128, 128, t.shape).astype(t.dtype.numpy))
    for a, b in zip(LiteRt(before).run(inputs), LiteRt(after).run(inputs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("data", [DIGITS.read_bytes(), tiny_network()], ids=["digits", "tiny"])
def test_the_copy_is_the_same_network(data: bytes) -> None:
    plan = plan_for_tflm(data)
    copy = with_metadata(data, plan)
    assert read_metadata(data) is None and read_metadata(copy) == plan.offsets
    assert copy.endswith(data)  # not one old byte is touched
    assert simulate(copy, plan.offsets) <= plan.arena_bytes <= plan.greedy_bytes
    same_results(data, copy)


def test_a_plan_that_lets_tensors_collide_is_noticed() -> None:
    data = DIGITS.read_bytes()
    wrong = tuple(min(o, 0) for o in plan_for_tflm(data).offsets)
    with pytest.raises(AssertionError, match="damaged"):
        simulate(data, wrong)


def test_an_older_plan_is_replaced() -> None:
    data = DIGITS.read_bytes()
    plan = plan_for_tflm(data)
    twice = with_metadata(with_metadata(data, plan), plan)
    model = tflite.Model.GetRootAsModel(twice, 0)
    old = tflite.Model.GetRootAsModel(data, 0)
    assert model.MetadataLength() == old.MetadataLength() + 1
    assert read_metadata(twice) == plan.offsets
    same_results(data, twice)


def test_everything_in_the_file_stays_aligned_and_first_words_are_as_documented() -> None:
    data = tiny_network()
    copy = with_metadata(data, plan_for_tflm(data))
    assert (len(copy) - len(data)) % 16 == 0
    model = tflite.Model.GetRootAsModel(copy, 0)
    raw = model.Buffers(model.BuffersLength() - 1)
    words = np.frombuffer(raw.DataAsNumpy().tobytes(), "<i4")
    assert words[:3].tolist() == [1, 1, model.Subgraphs(0).TensorsLength()]
    assert raw._tab.Vector(raw._tab.Offset(4)) % 16 == 0


def test_state_is_left_to_tflm() -> None:
    b = Builder()
    x, y = b.tensor((1, 64)), b.tensor((1, 64))
    state = b.tensor((1, 64), variable=True)
    b.operator("ADD", [x, state], y)
    offsets = plan_for_tflm(b.build([x], [y])).offsets
    assert offsets[state] == -1 and {offsets[x], offsets[y]} == {0, 64}


def test_damaged_files_are_sentences() -> None:
    data = bytearray(tiny_network())
    random = np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 8):
            broken[at] = random.integers(256)
        try:
            read_bytes(bytes(broken), "x")  # the command line imports first
            plan = plan_for_tflm(bytes(broken))
            assert len(with_metadata(bytes(broken), plan)) > len(broken)
        except ModelError:
            continue


def test_command_line(tmp_path: Path) -> None:
    out = tmp_path / "copy.tflite"
    result = tinydeploy("plan", DIGITS, "--tflm-metadata", out)
    plan = plan_for_tflm(DIGITS.read_bytes())
    assert read_metadata(out.read_bytes()) == plan.offsets
    assert f"{plan.arena_bytes:,} bytes" in result.stdout


@pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set")
def test_visual_wake_words() -> None:
    """TFLM's greedy planner misses the least possible arena of this network by a sixth."""
    data = (Path(MODELS) / "mlperf_tiny" / "vww_int8.tflite").read_bytes()
    plan = plan_for_tflm(data)
    assert (plan.arena_bytes, plan.greedy_bytes) == (55_296, 64_512)
    assert simulate(data, plan.offsets) == 55_296
    same_results(data, with_metadata(data, plan))
