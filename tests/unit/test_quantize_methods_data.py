"""Methods on whole float networks: equal functions, means put right, made-up samples, effects."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from tinydeploy.errors import UsageError
from tinydeploy.importers.tflite import read_file
from tinydeploy.ir import DType, Graph, Node, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._window import Window
from tinydeploy.ops.execute import run_all, run_floats, run_outputs
from tinydeploy.ops.fully_connected import Attributes as Dense
from tinydeploy.ops.mean import Attributes as Mean
from tinydeploy.quantize.data_free import made_up_samples
from tinydeploy.quantize.effects import effects
from tinydeploy.quantize.equalize import equalize, pairs
from tinydeploy.quantize.feedback import moments, with_feedback
from tinydeploy.quantize.measure import measure, to_integers, to_real
from tinydeploy.quantize.normal import normalise
from tinydeploy.quantize.quantize import Settings, quantize

LITERT = PROFILES["litert"]
DIGITS = Path(__file__).parents[2] / "examples" / "digits"


class Floats:
    """Collect a float network; weights have very different scales per channel."""

    def __init__(self, *shape: int) -> None:
        self.random = default_rng(4)
        self.tensors = [Tensor("in", shape, DType.FLOAT32)]
        self.nodes: list[Node] = []

    def layer(self, op: str, attributes: Any, *shape: int) -> None:
        inputs = [len(self.tensors) - 1]
        if shape:
            channels = shape[-1] if op == "DEPTHWISE_CONV_2D" else shape[0]
            for data in (self.random.normal(size=shape), self.random.normal(size=channels)):
                wide = 10.0 ** self.random.uniform(-1, 1, data.shape[-1])
                inputs.append(len(self.tensors))
                values = constant((data * wide).astype(np.float32))
                self.tensors.append(Tensor("c", values.shape, DType.FLOAT32, None, values))
        out = len(self.tensors)
        self.tensors.append(Tensor(f"t{out}", (1,), DType.FLOAT32))
        self.nodes.append(Node(f"n{out}", op, tuple(inputs), (out,), attributes))
        (found,) = op_named(op).shape(Call(self.graph(), self.nodes[-1]))
        self.tensors[out] = Tensor(f"t{out}", found, DType.FLOAT32)

    def graph(self) -> Graph:
        return Graph(
            "floats", tuple(self.tensors), tuple(self.nodes), (0,), (len(self.tensors) - 1,)
        )


def window(activation: str) -> Window:
    return Window(1, 1, 1, 1, "SAME", activation)


def network(activation: str = "RELU") -> Graph:
    net = Floats(1, 6, 7, 3)
    net.layer("CONV_2D", window(activation), 8, 3, 3, 3)
    net.layer("DEPTHWISE_CONV_2D", window(activation), 1, 3, 3, 16)
    net.layer("CONV_2D", window("NONE"), 6, 1, 1, 16)
    net.layer("MEAN", Mean((1, 2), False))
    net.layer("FULLY_CONNECTED", Dense("NONE", False), 4, 6)
    return net.graph()


def samples_of(graph: Graph, count: int, seed: int = 0) -> list[list[np.ndarray]]:
    r = default_rng(seed)
    shape = graph.tensors[graph.inputs[0]].shape
    return [[r.uniform(-0.2, 2, shape).astype(np.float32)] for _ in range(count)]


@cache
def digits() -> tuple[Graph, list[list[np.ndarray]], np.ndarray]:
    held = np.load(DIGITS / "digits_test.npz")
    images = [[image[None]] for image in held["float0"]]
    return normalise(read_file(DIGITS / "digits_float.tflite")), images, held["labels"]


def test_equalising_leaves_the_function() -> None:
    graph = network()
    assert pairs(graph) == [(0, 1), (1, 2), (2, 4)]
    equal = equalize(graph)
    for sample in samples_of(graph, 3):
        wanted, got = (run_floats(g, sample)[graph.outputs[0]] for g in (graph, equal))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_equalised_ranges_are_alike() -> None:
    graph = equalize(network())
    first, second = graph.nodes[1], graph.nodes[2]
    before = np.abs(graph.tensor(first.inputs[1]).data).max(axis=(0, 1, 2))
    after = np.abs(graph.tensor(second.inputs[1]).data).max(axis=(0, 1, 2))
    np.testing.assert_allclose(before, after, rtol=0.01)


def test_a_clamp_at_six_is_not_scaled() -> None:
    graph = network("RELU6")
    assert pairs(graph) == [(2, 4)]
    wanted = graph.tensor(graph.nodes[0].inputs[1]).data
    assert equalize(graph).tensor(graph.nodes[0].inputs[1]).data is wanted


def test_biases_put_the_means_right() -> None:
    """The mean of what the last layer gives is off by at most its own rounding afterwards."""
    graph, images, _ = digits()
    off = {}
    for correct in (False, True):
        settings = Settings(weight_bits=4, rounding="nearest", correct_bias=correct)
        q = quantize(graph, images[:12], settings)
        last = next(n for n in q.floats.nodes if n.op == "FULLY_CONNECTED").outputs[0]
        errors = [
            to_real(q.integers, last, run_all(q.integers, to_integers(q.integers, s), LITERT)[last])
            - run_floats(q.floats, s)[last]
            for s in images[:12]
        ]
        off[correct] = float(np.abs(np.mean(errors, axis=0)).max()) / q.integers.tensor(last).scale
    assert off[True] < 0.5 < off[False]


def test_feedback_errs_least_on_the_outputs() -> None:
    graph = network()
    seen = moments(graph, samples_of(graph, 4), centred=False)
    for position, axis in ((0, 0), (1, 3), (4, 0)):
        weights = graph.tensor(graph.nodes[position].inputs[1]).data
        assert weights is not None
        scaled = weights / np.abs(weights).max() * 7
        moment = seen[position]

        def error(
            stored: np.ndarray, scaled: Any = scaled, m: Any = moment, axis: int = axis
        ) -> float:
            rows = np.moveaxis(stored - scaled, axis, 0).reshape(m.shape[0], -1, m.shape[1])
            return float((np.matmul(rows, m) * rows).sum())

        assert error(with_feedback(scaled, axis, moment, np.rint)) < 0.9 * error(np.rint(scaled))


def test_inputs_that_never_vary_are_rounded_to_nearest() -> None:
    graph = network()
    still = [[np.full((1, 6, 7, 3), value, np.float32)] for value in (1e4, 1e4)]
    moment = moments(graph, still, centred=True)[4]
    weights = default_rng(0).normal(size=(4, 6)) * 3
    np.testing.assert_array_equal(with_feedback(weights, 0, moment, np.rint), np.rint(weights))
    nothing = np.zeros((1, 6, 6))
    np.testing.assert_array_equal(with_feedback(weights, 0, nothing, np.rint), np.rint(weights))


def test_moments_are_those_of_what_the_layer_multiplies() -> None:
    """d' H d is the mean square of what weights d give: for all three kinds of layers."""
    graph, samples = network(), samples_of(network(), 2)
    for centred in (False, True):
        seen = moments(graph, samples, centred)
        for position, axis in ((0, 0), (1, 3), (4, 0)):
            node = graph.nodes[position]
            weights = graph.tensor(node.inputs[1]).data
            assert weights is not None
            plain = Call(graph, Node("", node.op, node.inputs[:2], node.outputs,
                                     Dense("NONE", False) if node.op == "FULLY_CONNECTED"
                                     else window("NONE")))  # fmt: skip
            reference = op_named(node.op).float_reference
            assert reference is not None
            outs = [reference(plain, [run_floats(graph, s)[node.inputs[0] or 0], weights])[0]
                    for s in samples]  # fmt: skip
            flat = np.concatenate([o.reshape(-1, o.shape[-1]) for o in outs]).astype(np.float64)
            wanted = flat.var(axis=0) if centred else (flat**2).mean(axis=0)
            moment = seen[position]
            rows = np.moveaxis(weights, axis, 0).reshape(moment.shape[0], -1, moment.shape[1])
            got = (np.matmul(rows, moment) * rows).sum(axis=2).reshape(-1)
            np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("codebooks", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_four_bits_read_the_digits(codebooks: bool) -> None:
    """Within one point of the float network's accuracy on images the calibration has not seen."""
    graph, images, labels = digits()
    q = quantize(graph, images[:24], Settings(weight_bits=4, codebooks=codebooks))
    for position, node in enumerate(q.floats.nodes):
        if q.weighted(position):
            stored = next(n for n in q.integers.nodes if n.outputs == node.outputs)
            values = q.integers.tensor(stored.inputs[1]).data
            assert values is not None and len(np.unique(values)) <= 16
    right = {"float": 0, "int4": 0}
    for image, label in zip(images[100:], labels[100:], strict=True):
        right["float"] += int(run_floats(graph, image)[graph.outputs[0]].argmax() == label)
        stored_input = to_integers(q.integers, image)
        right["int4"] += int(run_outputs(q.integers, stored_input, LITERT)[0].argmax() == label)
    assert right["int4"] >= right["float"] - 1


def test_without_samples_the_range_is_an_assumption_and_said_to_be() -> None:
    graph, images, _ = digits()
    q = quantize(graph, None, Settings(input_range=(0, 1)))
    (said,) = q.warnings
    assert "from 0 to 1" in said and "assumption" not in said
    assert measure(q.floats, q.integers, images[100:108], LITERT).outputs[0] > 30
    assert "assumption" in quantize(graph, None).warnings[0]
    assert not quantize(graph, images[:2]).warnings
    made = [s[0] for s in made_up_samples(graph, (-3, 5))]
    assert np.min(made) >= -3 and np.max(made) <= 5 and np.ptp(made) > 7.9
    assert all(
        np.array_equal(a, b[0]) for a, b in zip(made, made_up_samples(graph, (-3, 5)), strict=True)
    )
    with pytest.raises(UsageError, match="no range"):
        made_up_samples(graph, (1, 1))


def test_effects_tell_each_method_apart() -> None:
    graph = network()
    found = {e.method: e for e in effects(graph, samples_of(graph, 8), Settings(weight_bits=4))}
    assert found["as chosen"].settings == Settings(weight_bits=4)
    assert found["as chosen"].sqnr > found["none"].sqnr
    assert "codebooks" in found and "SQuant rounding" in found
    few = effects(graph, samples_of(graph, 2), Settings())
    assert "codebooks" not in {e.method for e in few}
