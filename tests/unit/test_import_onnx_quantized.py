"""Models with QuantizeLinear and DequantizeLinear become integer graphs of the very same scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_lab import Net, imported, in_graph_order, kinds, wanted

from tinydeploy.errors import ModelError
from tinydeploy.importers import read_model
from tinydeploy.ir import DType, Graph
from tinydeploy.numerics.fixedpoint import quantize_float
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.verify.samples import as_declared, load_samples


class QuantizedNet(Net):
    """Put a pair around a value, or make weights and biases as onnxruntime's quantiser does."""

    def pair(self, x: str, scale: float, zero: int, kind: type = np.int8) -> str:
        pair = self.constant(scale), self.constant(zero, kind)
        return str(self.add("DequantizeLinear", self.add("QuantizeLinear", x, *pair), *pair))

    def integers(self, shape: tuple[int, ...], scales: list[float], axis: int) -> str:
        stored = self.constant(self.rng.integers(-127, 128, shape), np.int8)
        zeros = self.constant([0] * len(scales), np.int8)
        return str(self.add("DequantizeLinear", stored, self.constant(scales), zeros, axis=axis))

    def bias(self, scales: list[float]) -> str:
        stored = self.constant(self.rng.integers(-500, 500, len(scales)), np.int32)
        zeros = self.constant([0] * len(scales), np.int32)
        return str(self.add("DequantizeLinear", stored, self.constant(scales), zeros, axis=0))


def network(kind: type = np.int8) -> onnx.ModelProto:
    """Return convolution, ReLU, depthwise, residual, pool, dense and softmax between pairs."""
    net, low = QuantizedNet(19), 0 if kind is np.uint8 else -128
    scales = [0.004 + 0.0005 * k for k in range(6)]
    x = net.pair(net.input("batch", 3, 8, 10), 0.03, low + 120, kind)
    x = net.add("Conv", x, net.integers((6, 3, 3, 3), scales, 0),
                net.bias([0.03 * s for s in scales]), pads=[1, 1, 1, 1])  # fmt: skip
    x = skip = net.pair(net.add("Relu", x), 0.04, low, kind)
    x = net.add("Conv", x, net.integers((6, 1, 3, 3), scales, 0), group=6, pads=[1, 1, 1, 1])
    x = net.pair(net.add("Add", net.pair(x, 0.05, low + 100, kind), skip), 0.07, low + 90, kind)
    x = net.pair(net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 0.07, low + 90, kind)
    x = net.add("Flatten", x)
    x = net.add(
        "Gemm", x, net.integers((5, 120), [0.003], 0), net.bias([0.07 * 0.003] * 5), transB=1
    )
    x = net.pair(net.add("Softmax", net.pair(x, 0.1, low + 128, kind)), 1 / 256, low, kind)
    return net.model(x)


def run_both(model: onnx.ModelProto, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return the stored outputs of the integer graph, and of ONNX's evaluator, of 4 samples."""
    graph = run_passes(graph, PROFILES["litert"])
    source, out = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    got, want = [], []
    for seed in range(4):
        image = np.random.default_rng(seed).normal(size=(1, 3, 8, 10)).astype(np.float32)
        (real,) = wanted(model, [image])
        (moved,) = in_graph_order(graph, [image])
        stored = quantize_float(moved, source.scale, source.zero_point, "int8")
        got += run_outputs(graph, [stored], PROFILES["litert"])
        want.append(quantize_float(real, out.scale, out.zero_point, "int8"))
    return np.concatenate(got).astype(int), np.concatenate(want).astype(int)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_scales_and_results_are_those_of_the_file(kind: type, tmp_path: Path) -> None:
    model = network(kind)
    graph = imported(model, tmp_path)
    assert kinds(graph) == ["QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MAX_POOL_2D",
                            "RESHAPE", "FULLY_CONNECTED", "SOFTMAX", "DEQUANTIZE"]  # fmt: skip
    stored = [graph.tensors[n.outputs[0]] for n in graph.nodes[:-1]]
    assert all(t.dtype is DType.INT8 for t in stored)
    pairs = [(round(t.scale, 6), t.zero_point) for t in stored]
    assert pairs == [(0.03, -8), (0.04, -128), (0.05, -28), (0.07, -38), (0.07, -38), (0.07, -38),
                     (0.1, 0), (round(1 / 256, 6), -128)]  # fmt: skip
    conv = graph.nodes[1]
    weights, bias = graph.tensor(conv.inputs[1]), graph.tensor(conv.inputs[2])
    assert weights.shape == (6, 3, 3, 3) and weights.quantization is not None
    np.testing.assert_allclose(weights.quantization.scales, [0.004 + 0.0005 * k for k in range(6)])
    assert bias.dtype is DType.INT32
    got, want = run_both(model, graph)
    # The file computes in float between its pairs: roundings differ, by a step here and there.
    assert np.abs(got - want).max() <= 2 and np.abs(got - want).mean() < 0.5


def test_parts_of_other_scales_are_brought_to_one(tmp_path: Path) -> None:
    net = QuantizedNet(19)
    x = net.pair(net.input(1, 3, 8, 10), 0.03, 0)
    left = net.pair(
        net.add("Relu", net.add("Conv", x, net.integers((2, 3, 1, 1), [0.01], 0))), 0.05, -128
    )
    right = net.pair(net.add("Conv", x, net.integers((2, 3, 1, 1), [0.01], 0)), 0.06, 3)
    x = net.pair(net.add("Concat", left, right, axis=1), 0.06, 3)
    x = net.pair(net.add("Sigmoid", x), 0.01, -100)
    graph = imported(net.model(x), tmp_path)
    assert kinds(graph).count("QUANTIZE") == 3  # the input, one part, the sigmoid's fixed scale
    got, want = run_both(net.model(x), graph)
    # A step of the sigmoid's input is up to 0.06 / 4 / 0.01 = 1.5 of its output.
    assert np.abs(got - want.transpose(0, 2, 3, 1)).max() <= 2


def test_weights_quantised_in_the_graph(tmp_path: Path) -> None:
    """What quantisation-aware training in PyTorch exports: float weights before a pair."""
    net = QuantizedNet(19)
    x = net.pair(net.input(1, 3, 8, 10), 0.03, 0)
    scales, zeros = net.constant([0.01, 0.02]), net.constant([0, 0], np.int8)
    stored = net.add("QuantizeLinear", net.weights(2, 3, 1, 1), scales, zeros, axis=0)
    weights = net.add("DequantizeLinear", stored, scales, zeros, axis=0)
    x = net.pair(net.add("Conv", x, weights, net.weights(2)), 0.05, 0)
    graph = imported(net.model(x), tmp_path)
    assert kinds(graph) == ["QUANTIZE", "CONV_2D", "DEQUANTIZE"]
    got, want = run_both(net.model(x), graph)
    assert np.abs(got - want.transpose(0, 2, 3, 1)).max() <= 1


def test_a_value_without_a_scale_is_refused(tmp_path: Path) -> None:
    net = QuantizedNet(19)
    x = net.pair(net.input(1, 3, 8, 10), 0.03, 0)
    x = net.add("Sigmoid", net.add("Conv", x, net.integers((2, 3, 1, 1), [0.01], 0)))
    with pytest.raises(ModelError, match="only some of its values"):
        imported(net.model(net.pair(x, 0.01, -128)), tmp_path)


def test_what_onnx_runtime_quantises() -> None:
    """Its static quantisation with unsigned activations; outputs at most two steps of 1/256 off."""
    models = Path(__file__).parents[1] / "models"
    graph = run_passes(read_model(models / "same_qdq.onnx"), PROFILES["litert"])
    data = load_samples(graph, models / "same_qdq.npz", models / "same_qdq.npz")
    assert data.expected is not None and len(data.inputs) == 4
    for inputs, (want,) in zip(data.inputs, data.expected, strict=True):
        (got,) = run_outputs(graph, inputs, PROFILES["litert"])
        assert np.abs(as_declared(graph, 0, got) - want).max() < 2.5 / 256
