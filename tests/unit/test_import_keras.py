"""One network in every format becomes one integer network; what holds code is refused.

Each Keras file is converted in a process of its own, which takes TensorFlow some 5 seconds.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.importers import keras, read_model
from tinydeploy.ir import Graph
from tinydeploy.ops.execute import run_floats
from tinydeploy.quantize.quantize import Settings, quantize

MODELS = Path(__file__).parents[1] / "models"


def samples(count: int = 8) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(3)
    return [[rng.normal(size=(1, 16, 16, 3)).astype(np.float32)] for _ in range(count)]


def integers(name: str) -> Graph:
    return quantize(read_model(MODELS / name), samples(), Settings(ranges="min-max")).integers


def readers(graph: Graph) -> list[tuple[str, Sequence[int], object]]:
    """Return each node's operator, the nodes that its inputs come from, and its attributes."""
    makers = {n.outputs[0]: p for p, n in enumerate(graph.nodes)}
    return [
        (n.op, [makers.get(i, -1) for i in graph.activation_inputs(n)], n.attributes)
        for n in graph.nodes
    ]


def assert_same(one: Graph, other: Graph) -> None:
    """Compare node by node: equal structure, scales alike, stored numbers within one step."""
    assert readers(one) == readers(other)
    for a, b in zip(one.nodes, other.nodes, strict=True):
        tensors = [one.tensors[a.outputs[0]], other.tensors[b.outputs[0]]]
        assert tensors[0].shape == tensors[1].shape
        np.testing.assert_allclose(tensors[0].scale, tensors[1].scale, rtol=1e-4)
        assert abs(tensors[0].zero_point - tensors[1].zero_point) <= 1
        constants = [
            [t for i in n.inputs if i is not None and (t := g.tensors[i]).constant]
            for g, n in ((one, a), (other, b))
        ]
        if a.op == "RESHAPE":
            continue  # only a .tflite stores the shape as a constant, too
        for left, right in zip(*constants, strict=True):
            assert left.data is not None and right.data is not None
            assert left.quantization is not None and right.quantization is not None
            np.testing.assert_allclose(
                left.quantization.scales, right.quantization.scales, rtol=1e-4
            )
            difference = np.abs(left.data.astype(np.int64) - right.data)
            assert difference.max() <= 1, f"{a.name}: {difference.max()}"


def test_onnx_and_tflite_are_the_same_network() -> None:
    assert_same(integers("same.tflite"), integers("same.onnx"))


@pytest.mark.parametrize(
    "name",
    [
        "same.keras",
        pytest.param("same.h5", marks=pytest.mark.slow),
        pytest.param("same_saved_model", marks=pytest.mark.slow),
    ],
)
def test_what_tensorflow_converts_is_the_same_network(name: str) -> None:
    graph = read_model(MODELS / name)
    assert len(graph.source_sha256) == 64
    assert_same(
        quantize(graph, samples(), Settings(ranges="min-max")).integers, integers("same.tflite")
    )


def test_a_dynamic_batch_is_one() -> None:
    """The converter has the network compute the shape that Flatten gives: SHAPE, PACK."""
    assert_same(integers("same_dynamic.tflite"), integers("same.tflite"))


def test_half_precision_weights() -> None:
    """Halves have 11 significant bits: probabilities change in the third digit at most."""
    (sample,) = samples(1)
    full, half = read_model(MODELS / "same.tflite"), read_model(MODELS / "same_float16.tflite")
    assert [n.op for n in full.nodes] == [n.op for n in half.nodes]
    got = [run_floats(g, sample)[g.outputs[0]] for g in (full, half)]
    np.testing.assert_allclose(*got, atol=5e-3)
    assert not np.array_equal(*got)


def test_a_lambda_layer_is_refused_unread() -> None:
    with pytest.raises(ModelError, match="holds code"):
        read_model(MODELS / "lambda.keras")


@pytest.mark.slow
def test_a_lambda_layer_in_an_old_file_is_refused() -> None:
    with pytest.raises(ModelError, match="holds code"):
        read_model(MODELS / "lambda.h5")


@pytest.mark.parametrize("module", ["os", "builtins", "subprocess", "kerasx.layers"])
def test_layers_from_elsewhere_are_refused(module: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    config = f'{{"a": [{{"module": "{module}", "class_name": "system", "config": {{}}}}]}}'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(ModelError, match=f"holds code.*\n.*{module}"):
        read_model(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"PK\5\6" + b"\0" * 18, b"\x89HDF\r\n\x1a\n"[:4]]
)
def test_damaged_archives(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not a \.keras model"):
        read_model(path)


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (80 << 20))
    with pytest.raises(ModelError, match="too large"):
        read_model(path)


def test_deep_nesting(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"[" * 200_000 + b"]" * 200_000)
    with pytest.raises(ModelError):
        read_model(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a SavedModel"):
        read_model(tmp_path)
    shutil.copytree(MODELS / "same_saved_model", tmp_path / "linked")
    (tmp_path / "linked" / "assets").mkdir(exist_ok=True)
    (tmp_path / "linked" / "assets" / "words").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="outside its folder"):
        read_model(tmp_path / "linked")


def test_a_conversion_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "TIMEOUT_S", 0.2)
    with pytest.raises(ModelError, match="in time"):
        read_model(MODELS / "same.keras")


def test_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="tinydeploy\\[tensorflow\\]"):
        read_model(MODELS / "same.keras")


def test_unknown_files(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\2}q" + b"\0" * 60)
    with pytest.raises(ModelError, match="known kind"):
        read_model(path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path / "missing.model")
