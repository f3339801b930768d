"""Check whole public networks: LiteRT == reference == generated C on the host, or a refusal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite
from hostlib import HostModel, compile_all
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes, read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.verify.litert import LiteRt

Array = NDArray[Any]
DIGITS = Path(__file__).parents[2] / "examples" / "digits"
FOLDER = Path(os.environ.get("TINYDEPLOY_MODELS", "models that are not here"))
needs_models = pytest.mark.skipif(not FOLDER.is_dir(), reason="TINYDEPLOY_MODELS is not set")
SUPPORTED = (
    "mlperf_tiny/ic_int8", "mlperf_tiny/kws_int8", "mlperf_tiny/vww_int8", "mlperf_tiny/ad_int8",
    "mlperf_tiny/sww_int8", "mcunet/mcunet_vww", "mcunet/mcunet_detection",
    "tflm/hello_world_int8", "tflm/person_detect", "tflm/micro_speech_quantized",
)  # fmt: skip
REFUSED = {
    "tflm/mnist_lstm_int8": "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "wakeword/hey_jarvis": "VAR_HANDLE",
    "mlperf_tiny/kws_float": "float",
    "mlperf_tiny/ic_float": "float",
}
RANDOM_INPUTS = 20


def read(name: str) -> bytes:
    return (FOLDER / f"{name}.tflite").read_bytes()


@cache
def graph_of(content: bytes, profile: IntegerProfile, optimise: bool = True) -> Graph:
    return run_passes(read_bytes(content, "network"), profile, optimise=optimise)


@cache
def host_of(content: bytes, profile: IntegerProfile) -> HostModel:
    return compile_all([graph_of(content, profile)], profile)[0]


def axes_within_rank(content: bytes) -> bytes:
    """Set every quantized_dimension that is out of range to 0; LiteRT refuses it otherwise."""
    patched = bytearray(content)
    subgraph = tflite.Model.GetRootAs(patched, 0).Subgraphs(0)
    for k in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(k)
        quantization = tensor.Quantization()
        if quantization and quantization.QuantizedDimension() >= tensor.ShapeLength():
            at = quantization._tab.Pos + quantization._tab.Offset(16)
            patched[at : at + 4] = bytes(4)
    return bytes(patched)


def random_inputs(graph: Graph, count: int) -> list[list[Array]]:
    random = np.random.default_rng(0)
    shapes = [graph.tensors[i].shape for i in graph.inputs]
    return [[random.integers(-128, 128, s).astype(np.int8) for s in shapes] for _ in range(count)]


def quantized(graph: Graph, sample: Array) -> list[Array]:
    """Return a float sample as the integers of the only input."""
    tensor = graph.tensors[graph.inputs[0]]
    stored = quantize_float(sample, tensor.scale, tensor.zero_point, "int8")
    return [stored.reshape(tensor.shape)]


def check_litert(graph: Graph, content: bytes, sets: Sequence[list[Array]]) -> None:
    litert = LiteRt(content)
    for inputs in sets:
        given = [
            dequantize(x, graph.tensors[i].scale, graph.tensors[i].zero_point)
            if slot in graph.float_inputs
            else x
            for slot, (x, i) in enumerate(zip(inputs, graph.inputs, strict=True))
        ]
        got = run_outputs(graph, inputs, PROFILES["litert"])
        for slot, (i, want) in enumerate(zip(graph.outputs, litert.run(given), strict=True)):
            out = got[slot]
            if slot in graph.float_outputs:
                out = dequantize(out, graph.tensors[i].scale, graph.tensors[i].zero_point)
            np.testing.assert_array_equal(out, want)


def check_host(content: bytes, sets: Sequence[list[Array]]) -> None:
    """Compare the C of the optimised graph with the reference of the graph as imported."""
    for profile in PROFILES.values():
        plain, host = graph_of(content, profile, optimise=False), host_of(content, profile)
        for inputs in sets:
            want = run_outputs(plain, inputs, profile)
            for got, expected in zip(host.run(inputs), want, strict=True):
                np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def digits() -> tuple[bytes, list[list[Array]]]:
    with np.load(DIGITS / "digits_test.npz", allow_pickle=False) as archive:
        images = archive["in0"]
    return (DIGITS / "digits_int8.tflite").read_bytes(), [[image[None]] for image in images]


def test_digits_example_is_bit_exact() -> None:
    content, sets = digits()
    graph = graph_of(content, PROFILES["litert"])
    check_litert(graph, content, [*sets, *random_inputs(graph, RANDOM_INPUTS)])
    check_host(content, [*sets[:20], *random_inputs(graph, 3)])


@needs_models
@pytest.mark.parametrize("name", SUPPORTED)
def test_public_models_equal_litert(name: str) -> None:
    content = read(name)
    graph = graph_of(content, PROFILES["litert"])
    check_litert(graph, axes_within_rank(content), random_inputs(graph, RANDOM_INPUTS))


@needs_models
@pytest.mark.parametrize("name", SUPPORTED)
def test_public_models_on_the_host_equal_the_reference(name: str) -> None:
    content = read(name)
    check_host(content, random_inputs(graph_of(content, PROFILES["litert"]), 3))


@needs_models
def test_real_spectrograms() -> None:
    content = read("mlperf_tiny/sww_int8")
    graph = graph_of(content, PROFILES["litert"])
    with np.load(FOLDER / "mlperf_tiny" / "sww_calibration.npz", allow_pickle=False) as archive:
        samples = archive["specs"]
    sets = [quantized(graph, sample.astype(np.float32)) for sample in samples]
    check_litert(graph, content, sets)
    check_host(content, sets[:5])


@needs_models
def test_real_machine_sounds() -> None:
    content = read("mlperf_tiny/ad_int8")
    graph = graph_of(content, PROFILES["litert"])
    windows = np.fromfile(FOLDER / "mlperf_tiny" / "ad_normal_id_01.bin", "<f4").reshape(40, 640)
    sets = [quantized(graph, window) for window in windows]
    check_litert(graph, content, sets)
    check_host(content, sets[:5])


def read_bitmap(path: Path) -> Array:
    """Return the grey values of an uncompressed 8-bit bitmap, top row first."""
    raw = path.read_bytes()
    offset, width, height = (int.from_bytes(raw[k : k + 4], "little") for k in (10, 18, 22))
    assert raw[:2] == b"BM" and raw[28] == 8
    pixels = np.frombuffer(raw, np.uint8, width * height, offset)
    return pixels.reshape(height, width)[::-1]


@needs_models
def test_real_pictures_of_a_person_and_of_none() -> None:
    content = read("tflm/person_detect")
    with pytest.raises(ValueError, match="quantiz"):
        LiteRt(content)
    graph = graph_of(content, PROFILES["litert"])
    sets = []
    for name in ("person", "no_person"):
        # The example feeds the grey values' bytes as they are, read as signed ones.
        grey = np.ascontiguousarray(read_bitmap(FOLDER / "tflm" / f"{name}.bmp"))
        sets.append([grey.view(np.int8).reshape(1, 96, 96, 1)])
    check_litert(graph, axes_within_rank(content), sets)
    check_host(content, sets)
    # The second score is that of a person.
    scores = [run_outputs(graph, s, PROFILES["tflm"])[0].reshape(-1) for s in sets]
    assert scores[0][1] > scores[0][0] and scores[1][1] < scores[1][0]


@needs_models
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[name]) as caught:
        run_passes(read_file(FOLDER / f"{name}.tflite"), PROFILES["litert"])
    assert caught.value.exit_code == 3
