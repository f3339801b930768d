"""ONNX operators mean what ONNX's reference evaluator computes, and need no transposition."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_lab import Net, assert_agrees, in_graph_order, kinds, wanted

from tinydeploy.errors import ModelError
from tinydeploy.importers import read_model
from tinydeploy.importers.onnx.handlers import HANDLERS
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_floats, run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.quantize.quantize import Settings, quantize

MODELS = Path(__file__).parents[1] / "models"


def conv(net: Net, x: str, c_in: int, c_out: int, kernel: int = 3, **attributes: object) -> str:
    group = int(attributes.get("group", 1))  # type: ignore[call-overload]
    filters = net.weights(c_out, c_in // group, kernel, kernel)
    return str(net.add("Conv", x, filters, net.weights(c_out), **attributes))


def test_a_mobilenet_as_pytorch_exports_it() -> None:
    path = MODELS / "mobile.onnx"
    graph = read_model(path)
    assert graph.tensors[graph.inputs[0]].shape == (1, 32, 32, 3)
    assert graph.input_axes == ((0, 2, 3, 1),)
    assert "TRANSPOSE" not in kinds(graph)
    model = onnx.load(path)
    for seed in range(3):
        image = np.random.default_rng(seed).normal(size=(1, 3, 32, 32)).astype(np.float32)
        values = run_floats(graph, in_graph_order(graph, [image]))
        np.testing.assert_allclose(values[graph.outputs[0]], wanted(model, [image])[0], atol=1e-4)


WINDOWS: dict[str, Callable[[Net, str], str]] = {
    "strides and pads": lambda n, x: conv(n, x, 4, 6, strides=[2, 1], pads=[0, 1, 2, 1]),
    "dilations": lambda n, x: conv(n, x, 4, 6, dilations=[2, 3], pads=[2, 2, 2, 2]),
    "groups": lambda n, x: conv(n, x, 4, 6, group=2),
    "depthwise": lambda n, x: conv(n, x, 4, 4, group=4, pads=[1, 1, 1, 1]),
    "depth multiplier": lambda n, x: conv(n, x, 4, 8, group=4),
    "same upper": lambda n, x: conv(n, x, 4, 3, auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower": lambda n, x: conv(n, x, 4, 3, auto_pad="SAME_LOWER", strides=[2, 2]),
    "valid": lambda n, x: conv(n, x, 4, 3, auto_pad="VALID"),
    "max pool": lambda n, x: n.add(
        "MaxPool", x, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    "max pool, ceil": lambda n, x: n.add(
        "MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average pool": lambda n, x: n.add(
        "AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool, padding counts": lambda n, x: n.add(
        "AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "global average pool": lambda n, x: n.add("GlobalAveragePool", x),
    "global max pool": lambda n, x: n.add("GlobalMaxPool", x),
    "batch normalisation": lambda n, x: n.add(
        "BatchNormalization", conv(n, x, 4, 6), n.positive(6), n.weights(6), n.weights(6),
        n.positive(6)),
    "relu": lambda n, x: n.add("Relu", conv(n, x, 4, 6)),
    "relu6": lambda n, x: n.add("Clip", conv(n, x, 4, 6), n.constant(0), n.constant(6)),
    "clip to another bound": lambda n, x: n.add(
        "Clip", conv(n, x, 4, 6), n.constant(0), n.constant(2.5)),
    "leaky relu": lambda n, x: n.add("LeakyRelu", conv(n, x, 4, 6), alpha=0.1),
    "sigmoid": lambda n, x: n.add("Sigmoid", conv(n, x, 4, 6)),
    "tanh": lambda n, x: n.add("Tanh", conv(n, x, 4, 6)),
    "hard sigmoid": lambda n, x: n.add("HardSigmoid", conv(n, x, 4, 6)),
    "hard sigmoid of pytorch": lambda n, x: n.add("HardSigmoid", conv(n, x, 4, 6), alpha=1 / 6),
    "hard swish": lambda n, x: n.add("HardSwish", conv(n, x, 4, 6)),
    "prelu": lambda n, x: n.add("PRelu", conv(n, x, 4, 6), n.constant([0.2])),
    "sine and root": lambda n, x: n.add("Sin", n.add("Sqrt", n.add("Abs", conv(n, x, 4, 6)))),
    "elu": lambda n, x: n.add("Elu", conv(n, x, 4, 6)),
    "softmax over channels": lambda n, x: n.add("Softmax", conv(n, x, 4, 6), axis=1),
    "mean over the image": lambda n, x: n.add(
        "ReduceMean", conv(n, x, 4, 6), axes=[2, 3], keepdims=0),
    "mean over channels": lambda n, x: n.add("ReduceMean", conv(n, x, 4, 6), axes=[1], keepdims=1),
    "residual": lambda n, x: n.add("Add", conv(n, x, 4, 4, pads=[1, 1, 1, 1]), x),
    "difference": lambda n, x: n.add("Sub", conv(n, x, 4, 4, pads=[1, 1, 1, 1]), x),
    "gate per channel": lambda n, x: n.add(
        "Mul", x, n.add("Sigmoid", conv(n, n.add("GlobalAveragePool", x), 4, 4, 1))),
    "constant per channel": lambda n, x: n.add("Div", conv(n, x, 4, 6), n.positive(6, 1, 1)),
    "one minus": lambda n, x: n.add("Sub", n.constant(1), conv(n, x, 4, 6)),
    "concat of channels": lambda n, x: n.add(
        "Concat", x, conv(n, x, 4, 6, pads=[1, 1, 1, 1]), axis=1),
    "concat of rows": lambda n, x: n.add("Concat", x, n.add("Relu", conv(n, x, 4, 4, 1)), axis=-2),
    "pad": lambda n, x: conv(
        n, n.add("Pad", x, n.constant([0, 0, 1, 0, 0, 0, 2, 1], np.int64)), 4, 6),
    "slice": lambda n, x: conv(n, n.add(
        "Slice", x, *(n.constant(v, np.int64) for v in ([1, -7], [4, 100], [1, 3], [1, 2]))), 3, 6),
    "split": lambda n, x: n.add("Add", *n.add("Split", conv(n, x, 4, 6), outputs=2, axis=1)),
    "one column": lambda n, x: n.add("Gather", conv(n, x, 4, 6), n.constant(2, np.int64), axis=3),
    "nearest neighbour": lambda n, x: conv(n, n.add(
        "Resize", x, "", n.constant([1, 1, 2, 2]), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor"), 4, 6),
    "nearest neighbour, half pixels": lambda n, x: n.add(
        "Resize", conv(n, x, 4, 6), "", "", n.constant([1, 6, 14, 21], np.int64), mode="nearest"),
    "dropout and identity": lambda n, x: n.add("Identity", n.add("Dropout", conv(n, x, 4, 6))),
    "squeeze": lambda n, x: n.add(
        "Squeeze", n.add("GlobalAveragePool", conv(n, x, 4, 6)), n.constant([2, 3], np.int64)),
    "shuffle of channels": lambda n, x: n.add("Reshape", n.add("Transpose", n.add(
        "Reshape", conv(n, x, 4, 6), n.constant([1, 2, 3, 7, 9], np.int64)), perm=[0, 2, 1, 3, 4]),
        n.constant([0, -1, 7, 9], np.int64)),
    "dense after flatten": lambda n, x: n.add(
        "Gemm", n.add("Flatten", n.add("Relu", conv(n, x, 4, 6))), n.weights(5, 378), n.weights(5),
        transB=1, alpha=0.5, beta=2.0),
    "product after reshape": lambda n, x: n.add("Add", n.add("MatMul", n.add(
        "Reshape", conv(n, x, 4, 6), n.constant([1, -1], np.int64)), n.weights(378, 5)),
        n.weights(5)),
    "dense over channels last": lambda n, x: n.add(
        "MatMul", n.add("Transpose", conv(n, x, 4, 6), perm=[0, 2, 3, 1]), n.weights(6, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
def test_operators_on_images(name: str, tmp_path: Path) -> None:
    net = Net()
    out = WINDOWS[name](net, net.input("batch", 4, 9, 11))
    graph = assert_agrees(net.model(out), tmp_path)
    moved = [k for k in kinds(graph) if k == "TRANSPOSE"]
    assert len(moved) == (name == "shuffle of channels")


def test_signals_are_images_of_height_one(tmp_path: Path) -> None:
    net = Net()
    x = net.add("Conv", net.input(1, 3, 20), net.weights(6, 3, 5), strides=[2], pads=[1, 2])
    x = net.add("BatchNormalization", x, net.positive(6), net.weights(6), net.weights(6),
                net.positive(6))  # fmt: skip
    x = net.add("MaxPool", net.add("Relu", x), kernel_shape=[2], strides=[2])
    x = net.add("Gemm", net.add("Flatten", x), net.weights(30, 3))
    graph = assert_agrees(net.model(net.add("Softmax", x)), tmp_path)
    assert graph.input_axes == ((0, 2, 1),) and "TRANSPOSE" not in kinds(graph)


def test_images_declared_with_channels_last(tmp_path: Path) -> None:
    """What tf2onnx writes: a transposition before and after the convolutions."""
    net = Net()
    x = net.add("Transpose", net.input(1, 9, 11, 4), perm=[0, 3, 1, 2])
    x = net.add("Transpose", net.add("Relu", conv(net, x, 4, 6)), perm=[0, 2, 3, 1])
    graph = assert_agrees(net.model(x), tmp_path)
    assert kinds(graph) == ["CONV_2D"] and graph.input_axes == ((0, 1, 2, 3),)


def test_constants_are_folded(tmp_path: Path) -> None:
    """Shape arithmetic and weights that an exporter computes in the graph."""
    net = Net()
    x = conv(net, net.input("batch", 4, 9, 11), 4, 6)
    batch = net.add("Gather", net.add("Shape", x), net.constant(0, np.int64))
    axes = net.constant([0], np.int64)
    shape = net.add(
        "Concat", net.add("Unsqueeze", batch, axes), net.constant([-1], np.int64), axis=0
    )
    weights = net.add(
        "Transpose", net.add("Mul", net.weights(5, 378), net.constant(0.3)), perm=[1, 0]
    )
    x = net.add("MatMul", net.add("Reshape", x, shape), weights)
    assert kinds(assert_agrees(net.model(x), tmp_path)) == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 18, 20])
def test_opsets(opset: int, tmp_path: Path) -> None:
    net = Net(opset)
    x = net.add("Relu", conv(net, net.input(1, 4, 9, 11), 4, 6))
    if opset < 18:
        x = net.add("ReduceMean", x, axes=[2, 3])
    else:
        x = net.add("ReduceMean", x, net.constant([2, 3], np.int64))
    x = net.add("Softmax", net.add("Flatten", x), axis=1)
    assert kinds(assert_agrees(net.model(x), tmp_path)) == ["CONV_2D", "MEAN", "SOFTMAX"]


@pytest.mark.parametrize("form", ["none", "tanh"])
def test_gelu(form: str, tmp_path: Path) -> None:
    net = Net(20)
    x = net.add("Gelu", conv(net, net.input(1, 4, 9, 11), 4, 6), approximate=form)
    assert kinds(assert_agrees(net.model(x), tmp_path)) == ["CONV_2D", "GELU"]


REFUSED: dict[str, Callable[[Net, str], str]] = {
    "not supported": lambda n, x: n.add("LRN", x, size=3),
    "computed": lambda n, x: n.add("Conv", x, x),
    "mode": lambda n, x: n.add("Pad", x, n.constant([0] * 7 + [1], np.int64), mode="reflect"),
    "linear": lambda n, x: n.add("Resize", x, "", n.constant([1, 1, 2, 2]), mode="linear"),
    "value of": lambda n, x: n.add(
        "Pad", x, n.constant([0] * 7 + [1], np.int64), n.constant(1.0)),
    "bounds": lambda n, x: n.add("Clip", x, n.constant(-3), n.constant(4)),
    "training_mode": lambda n, x: n.add("Dropout", x, n.constant(0.5), n.constant(True, bool)),
    "aspect ratio": lambda n, x: n.add(
        "Resize", x, "", "", n.constant([1, 4, 18, 22], np.int64), mode="nearest",
        keep_aspect_ratio_policy="not_larger"),
    "dilations": lambda n, x: n.add("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_supported_is_refused(why: str, tmp_path: Path) -> None:
    net = Net()
    model = net.model(REFUSED[why](net, net.input(1, 4, 9, 11)))
    with pytest.raises(ModelError, match=why):
        assert_agrees(model, tmp_path)


def test_the_documentation_lists_every_operator() -> None:
    page = (MODELS.parents[1] / "docs" / "import.md").read_text()
    rows = page[page.index("## ONNX operators") : page.index("### QDQ models")]
    listed = set(re.findall(r"\b[A-Z][A-Za-z]+\b", "".join(
        line.split("|")[1] for line in rows.splitlines() if line.startswith("|"))))  # fmt: skip
    assert listed == set(HANDLERS)


def test_quantised_it_still_says_the_same() -> None:
    """Integers behind all passes against floats, over 4 images: at least 15 dB."""
    graph = read_model(MODELS / "mobile.onnx")
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 32, 32, 3)).astype(np.float32) for _ in range(8)]
    integer = quantize(graph, [[i] for i in images], Settings(ranges="min-max")).integers
    integer = run_passes(integer, PROFILES["litert"])
    assert integer.input_axes == ((0, 2, 3, 1),) and "TRANSPOSE" not in kinds(integer)
    source, out = integer.tensors[integer.inputs[0]], integer.tensors[integer.outputs[0]]
    noise = signal = 0.0
    for image in images[:4]:
        stored = quantize_float(image, source.scale, source.zero_point, "int8")
        (got,) = run_outputs(integer, [stored], PROFILES["litert"])
        want = run_floats(graph, [image])[graph.outputs[0]]
        noise += float(((dequantize(got, out.scale, out.zero_point) - want) ** 2).sum())
        signal += float((want**2).sum())
    assert 10 * np.log10(signal / noise) > 15
