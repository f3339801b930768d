"""Damaged and hostile .onnx files end in a ModelError, soon and without much memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_lab import Net, imported, kinds

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.importers import read_model, tdm
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.passes import run_passes
from tinydeploy.verify.samples import split

MODELS = Path(__file__).parents[1] / "models"
SECONDS = 10.0


def small() -> onnx.ModelProto:
    net = Net()
    x = net.add("Conv", net.input(1, 3, 6, 5), net.weights(4, 3, 3, 3))
    return net.model(net.add("Relu", x))


def refused(model: onnx.ModelProto, folder: Path, match: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ModelError, match=match):
        imported(model, folder)
    assert time.perf_counter() - began < SECONDS


def test_truncated_files(tmp_path: Path) -> None:
    data = small().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_model(path)


def test_flipped_bytes(tmp_path: Path) -> None:
    """Each file is read or refused; nothing else escapes."""
    data = np.frombuffer(small().SerializeToString(), np.uint8)
    rng, path, refusals = np.random.default_rng(0), tmp_path / "flipped.onnx", 0
    for _ in range(200):
        changed = data.copy()
        changed[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(changed.tobytes())
        try:
            read_model(path)
        except ModelError:
            refusals += 1
    assert refusals > 50


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"", b"\0" * 64, b"\xff" * 64, b"not a model", b"\x0a" * 1000):
        path.write_bytes(content)
        with pytest.raises(ModelError):
            read_model(path)


def test_cycles_and_names(tmp_path: Path) -> None:
    net = Net()
    first = net.add("Add", net.input(1, 4), "n1")
    refused(net.model(net.add("Relu", first)), tmp_path, "cycle")
    twice = small()
    twice.graph.node[1].output[0] = twice.graph.node[0].output[0]
    refused(twice, tmp_path, "written twice")
    missing = small()
    missing.graph.output[0].name = "elsewhere"
    refused(missing, tmp_path, "nothing has produced")


def test_deep_nesting(tmp_path: Path) -> None:
    """Graphs in attributes of nodes in graphs: more than the parser follows."""
    model = small()
    inner = b""
    for _ in range(5000):
        graph = b"\x0a" + _length(inner) + inner  # GraphProto.node
        attribute = b"\x32" + _length(graph) + graph  # AttributeProto.g
        inner = b"\x2a" + _length(attribute) + attribute  # NodeProto.attribute
    whole = b"\x0a" + _length(inner) + inner
    path = tmp_path / "deep.onnx"
    path.write_bytes(model.SerializeToString() + b"\x3a" + _length(whole) + whole)
    with pytest.raises(ModelError):
        read_model(path)


def _length(data: bytes) -> bytes:
    size, out = len(data), b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return out + bytes([size])


def constant_of(**fields: Any) -> onnx.ModelProto:
    """Return a model that adds a constant with some fields set by hand."""
    net = Net()
    x = net.input(1, 4)
    net.initializers.append(TensorProto(name="w", data_type=TensorProto.FLOAT, **fields))
    return net.model(net.add("Add", x, "w"))


def test_constants_that_lie(tmp_path: Path) -> None:
    refused(constant_of(dims=[1 << 40]), tmp_path, "absurdly large")
    refused(constant_of(dims=[1 << 33, 1 << 33]), tmp_path, "absurdly large")
    refused(constant_of(dims=[-4]), tmp_path, "absurdly large")
    refused(constant_of(dims=[4], raw_data=b"\0" * 8), tmp_path, "does not hold")
    refused(constant_of(dims=[1] * 30, raw_data=b"\0" * 4), tmp_path, "absurdly large")


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "", "link", "a\\..\\secret", "in/x"]
)
def test_external_data_stays_in_its_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "in").symlink_to(tmp_path)
    refused(external(location), folder, "outside its folder")


def external(location: str, **more: str) -> onnx.ModelProto:
    entries = {"location": location, **more}
    return constant_of(
        dims=[4],
        data_location=TensorProto.EXTERNAL,
        external_data=[onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items()],
    )


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "net.data").write_bytes(b"\0" * 8 + np.arange(4, dtype=np.float32).tobytes())
    graph = imported(external("net.data", offset="8", length="16"), tmp_path)
    (data,) = [t.data for t in graph.tensors if t.data is not None]
    assert data.tolist() == [0, 1, 2, 3]
    for offset, length in (("16", "16"), ("-8", "16"), ("8", "-7"), ("99", "16")):
        refused(external("net.data", offset=offset, length=length), tmp_path, "too short")
    refused(external("net.data", offset="many"), tmp_path, "damaged")
    refused(external("absent"), tmp_path, "cannot be read")


def test_sizes_that_are_not_known(tmp_path: Path) -> None:
    net = Net()
    refused(net.model(net.add("Relu", net.input(1, "width"))), tmp_path, "unknown size")
    net = Net()
    refused(net.model(net.add("Relu", net.input(1, 1 << 30))), tmp_path, "absurdly large")
    net = Net()
    x = net.input(1, 4)
    shape = net.constant([1 << 20, 1 << 20], np.int64)
    grown = net.add("ConstantOfShape", shape)
    refused(net.model(net.add("Add", x, grown)), tmp_path, "so many elements")
    net = Net()
    x, tall = net.input(1, 4), net.constant(np.zeros((1 << 16, 1)))
    grown = net.add("Expand", tall, net.constant([1, 1 << 16], np.int64))
    refused(net.model(net.add("Add", x, grown)), tmp_path, "so many elements")
    net = Net()
    x, wide = net.input(1, 4), net.constant(np.zeros((2, 1 << 16)))
    grown = net.add("Gather", wide, net.constant(np.zeros(1 << 16), np.int64))
    refused(net.model(net.add("Add", x, grown)), tmp_path, "so many elements")


def test_versions_and_domains(tmp_path: Path) -> None:
    for opset in (1, 10, 99):
        model = small()
        model.opset_import[0].version = opset
        refused(model, tmp_path, "version of the ONNX operators")
    model = small()
    model.graph.node[1].domain = "com.microsoft"
    refused(model, tmp_path, "not supported")


def test_names_are_made_printable(tmp_path: Path) -> None:
    model = small()
    model.graph.input[0].name = model.graph.node[0].input[0] = '*/ \n"é' + "x" * 5000
    graph = imported(model, tmp_path)
    name = graph.tensors[graph.inputs[0]].name
    assert name.isascii() and name.isprintable() and len(name) <= 96


def test_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"tinydeploy\[onnx\]"):
        read_model(MODELS / "same.onnx")


def image(folder: Path, *shape: int) -> Graph:
    net = Net()
    return imported(net.model(net.add("GlobalAveragePool", net.input(*shape))), folder)


def test_samples_in_the_order_that_the_file_declares(tmp_path: Path) -> None:
    """[N, C, H, W] is moved; where a shape may be either, the file's order wins."""
    graph = image(tmp_path, 1, 3, 3, 4)
    (axes,), tensor = graph.input_axes, graph.tensors[graph.inputs[0]]
    assert tensor.shape == (1, 3, 4, 3) and axes == (0, 2, 3, 1)
    declared = np.arange(72, dtype=np.float32).reshape(2, 3, 3, 4)
    stored = declared.transpose(0, 2, 3, 1)
    for given in (declared, declared[:, None], stored, stored[:, None]):
        got = split(given, tensor, "input 0", Path("x.npz"), axes)
        np.testing.assert_array_equal(np.stack(got)[:, 0], stored)
    square = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    either = image(tmp_path, 1, 3, 3, 3)
    (got,) = split(square, either.tensors[either.inputs[0]], "input 0", Path("x.npz"), axes)
    np.testing.assert_array_equal(got, square.transpose(0, 2, 3, 1))
    with pytest.raises(UsageError, match="wrong shape"):
        split(declared[:, :, :, :2], tensor, "input 0", Path("x.npz"), axes)


def test_an_integer_model_keeps_its_axes(tmp_path: Path) -> None:
    net = Net(19)
    pair = net.constant(0.1), net.constant(0, np.int8)
    x = net.add("DequantizeLinear", net.add("QuantizeLinear", net.input(1, 3, 3, 4), *pair), *pair)
    x = net.add("MaxPool", x, kernel_shape=[2, 2])
    x = net.add("DequantizeLinear", net.add("QuantizeLinear", x, *pair), *pair)
    graph = imported(net.model(x), tmp_path)
    assert kinds(graph) == ["QUANTIZE", "MAX_POOL_2D", "DEQUANTIZE"]
    assert graph.input_axes == graph.output_axes == ((0, 2, 3, 1),)
    integer = run_passes(graph, PROFILES["litert"])
    again = tdm.read_bytes(tdm.to_bytes(integer))
    assert again.input_axes == integer.input_axes == ((0, 2, 3, 1),)
    assert again.output_axes == ((0, 2, 3, 1),)
