"""Check that float networks become integer ones: semantics, accuracy, files, refusals."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import float_network
from numpy.typing import NDArray

from tinydeploy.cli.main import cli
from tinydeploy.errors import ModelError, TinydeployError, UsageError
from tinydeploy.export import tflite
from tinydeploy.importers import read_model, tdm
from tinydeploy.ir import DType, Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.quantize.measure import decibels, measure, to_integers, to_real
from tinydeploy.quantize.quantize import Settings, quantize
from tinydeploy.verify.accuracy import area_under_curve
from tinydeploy.verify.litert import LiteRt

Array = NDArray[Any]
LITERT = PROFILES["litert"]
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_float.tflite"
DIGITS_TEST = ROOT / "examples" / "digits" / "digits_test.npz"
FOLDER = Path(os.environ.get("TINYDEPLOY_MODELS", "models that are not here"))
needs_models = pytest.mark.skipif(not FOLDER.is_dir(), reason="TINYDEPLOY_MODELS is not set")
Command = Callable[..., Any]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command and return its document."""

    def run(*arguments: object) -> Any:
        assert cli.main([*map(str, arguments), "--json"], standalone_mode=False) == 0
        return json.loads(capsys.readouterr().out)

    return run


def digits(count: int) -> list[list[Array]]:
    return [[image[None]] for image in np.load(DIGITS_TEST)["float0"][:count]]


def smooth_images(graph: Graph, low: float, high: float, count: int) -> list[list[Array]]:
    """Return random images whose neighbours resemble each other, as those of cameras do."""
    shape, found = graph.tensors[graph.inputs[0]].shape, []
    for seed in range(count):
        x = np.random.default_rng(seed).uniform(0, 1, shape)
        for axis in (1, 2) if len(shape) == 4 else ():
            for _ in range(4):
                x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / 3
        x = (x - x.min()) / (x.max() - x.min())
        found.append([(low + (high - low) * x).astype(np.float32)])
    return found


@pytest.mark.parametrize("bits", [8, 4])
def test_litert_runs_what_was_quantised(bits: int) -> None:
    """The .tflite gives in LiteRT what the reference gives, the .tdm the same graph again."""
    quantized = quantize(read_model(DIGITS), digits(8), Settings(weight_bits=bits))
    graph = quantized.model
    litert = LiteRt(tflite.to_bytes(graph))
    again = tdm.read_bytes(quantized.archive())
    assert again.replace(source_sha256=graph.source_sha256).digest() == graph.digest()
    for sample in digits(4):
        stored = to_integers(graph, sample)
        own = run_outputs(graph, stored, LITERT)
        np.testing.assert_array_equal(own[0], litert.run(stored)[0])
        np.testing.assert_array_equal(own[0], run_outputs(again, stored, LITERT)[0])


def test_equal_runs_give_equal_files() -> None:
    files = {quantize(read_model(DIGITS), digits(3)).archive({"note": 1}) for _ in range(2)}
    assert len(files) == 1


@pytest.mark.parametrize(("bits", "loss"), [(8, 0.003), (4, 0.01)])
def test_the_example_keeps_its_accuracy(command: Command, bits: int, loss: float) -> None:
    """Within 0.3 points of float at 8 bits, within 1 point with 4-bit weights and no training."""
    d = command("quantize", DIGITS, "--data", DIGITS_TEST, "--weights", bits, "--samples", 100)
    assert d["accuracy"]["metric"] == "top1" and d["accuracy"]["samples"] == 100
    assert d["accuracy"]["reference"] >= d["accuracy"]["floats"] - loss
    assert len(d["layers"]) > 15 and d["output_sqnr_db"][0] > 15


@needs_models
@pytest.mark.parametrize("name", ["kws", "ic", "ad"])
def test_published_models_lose_more(name: str) -> None:
    """Compare with MLPerf Tiny's own int8 models, both against the float one, on equal inputs."""
    floats = read_model(FOLDER / "mlperf_tiny" / f"{name}_float.tflite")
    theirs = run_passes(
        read_model(FOLDER / "mlperf_tiny" / f"{name}_int8.tflite"), LITERT, optimise=False
    )
    inp = theirs.tensors[theirs.inputs[0]]
    low, high = ((v - inp.zero_point) * inp.scale for v in (-128, 127))
    samples = smooth_images(floats, low, high, 24)
    measured = measure(
        (own := quantize(floats, samples[:12])).floats, own.integers, samples[12:], LITERT
    )
    signal = noise = 0.0
    for sample, exact in zip(samples[12:], measured.floats, strict=True):
        (out,) = run_outputs(theirs, to_integers(theirs, sample), LITERT)
        got = to_real(theirs, theirs.outputs[0], out).reshape(exact.shape).astype(np.float64)
        signal += float((exact.astype(np.float64) ** 2).sum())
        noise += float(((got - exact) ** 2).sum())
    assert measured.outputs[0] >= decibels(signal, noise)


def test_normal_form_folds_scales_and_clamps(tmp_path: Path) -> None:
    """MUL, ADD and RELU6 behind a convolution vanish, and the network computes the same."""
    graph = read_model(_saved(tmp_path, float_network()))
    random = np.random.default_rng(1)
    samples = [
        [random.normal(size=graph.tensors[graph.inputs[0]].shape).astype(np.float32)]
        for _ in range(6)
    ]
    quantized = quantize(graph, samples)
    assert [n.op for n in quantized.floats.nodes] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "LOGISTIC",
    ]  # fmt: skip
    assert {n.attributes.activation for n in quantized.floats.nodes[:1]} == {"RELU6"}
    from tinydeploy.ops.execute import run_floats

    for sample in samples:
        before = run_floats(graph, sample)[graph.outputs[0]]
        after = run_floats(quantized.floats, sample)[quantized.floats.outputs[0]]
        np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-6)
    assert measure(quantized.floats, quantized.integers, samples, LITERT).outputs[0] > 25


def _saved(folder: Path, content: bytes) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(content)
    return path


def _npz(folder: Path, **arrays: Array) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


IMAGES = np.random.default_rng(0).uniform(0, 1, (4, 28, 28, 1)).astype(np.float32)
BAD_DATA = {
    "NaN": (dict(in0=np.where(IMAGES > 0.99, np.nan, IMAGES)), "NaN or infinity"),
    "infinite": (dict(in0=np.where(IMAGES > 0.99, np.inf, IMAGES)), "NaN or infinity"),
    "empty": (dict(in0=IMAGES[:0]), "no samples"),
    "shape": (dict(in0=IMAGES[:, :27]), "wrong shape"),
    "integers": (dict(in0=(IMAGES * 255).astype(np.uint8)), "takes real numbers"),
    "constant": (dict(in0=np.full_like(IMAGES, 0.5)), "never varies"),
    "missing": (dict(x=IMAGES), "no array 'in0'"),
    "labels": (dict(in0=IMAGES, labels=np.array([1, 2, 3])), "one integer per sample"),
    "classes": (dict(in0=IMAGES, labels=np.array([1, 2, 3, 10])), "does not have"),
}


@pytest.mark.parametrize("case", sorted(BAD_DATA))
def test_bad_data_is_refused(case: str, tmp_path: Path) -> None:
    arrays, words = BAD_DATA[case]
    with pytest.raises(UsageError, match=words):
        cli.main(
            ["quantize", str(DIGITS), "--data", str(_npz(tmp_path, **arrays))],
            standalone_mode=False,
        )


def test_bad_options_are_refused(tmp_path: Path) -> None:
    data = ["--data", str(_npz(tmp_path, in0=IMAGES))]
    for arguments, words in (
        ([*data, "--keep", "99"], "no layer"),
        ([*data, "-o", str(tmp_path / "x.h5")], "should end in"),
        (["--labels", str(DIGITS_TEST)], "needs the samples"),
    ):
        with pytest.raises(UsageError, match=words):
            cli.main(["quantize", str(DIGITS), *arguments], standalone_mode=False)
    with pytest.raises(UsageError, match="already"):
        cli.main(
            ["quantize", str(DIGITS.with_name("digits_int8.tflite")), *data], standalone_mode=False
        )


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path, float_network(poison=np.nan))
    with pytest.raises(ModelError, match="not finite"):
        quantize(read_model(path), [[np.zeros((1, 8, 8, 3), np.float32)]])


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    """Any change of a .tdm ends in a model that passes every check, or in a ModelError."""
    whole = quantize(read_model(DIGITS), digits(2)).archive()
    random = np.random.default_rng(3)
    refused = 0
    for k in range(120):
        damaged = bytearray(whole)
        if k % 3 == 0:
            del damaged[int(random.integers(1, len(whole))) :]
        else:
            for _ in range(int(random.integers(1, 9))):
                damaged[int(random.integers(len(whole)))] = int(random.integers(256))
        try:
            tdm.read_bytes(bytes(damaged))
        except ModelError:
            refused += 1
    assert refused > 60


def _edited(whole: bytes, path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Write an archive whose JSON was changed."""
    source = path.with_suffix(".source")
    source.write_bytes(whole)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "model.json":
                model = json.loads(content)
                edit(model)
                content = json.dumps(model).encode()
            new.writestr(name, content)
    return path


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "operator": lambda m: m["nodes"][0].update(op="__import__"),
    "attribute": lambda m: m["nodes"][0]["attributes"].update(stride_h=0),
    "attribute type": lambda m: m["nodes"][0]["attributes"].update(stride_h=[]),
    "attribute extra": lambda m: m["nodes"][0].update(attributes=None),
    "index": lambda m: m["nodes"][0].update(inputs=[10**9]),
    "negative": lambda m: m["nodes"][0].update(outputs=[-1]),
    "scale": lambda m: m["tensors"][m["inputs"][0]]["quantization"].update(scales=[0.0]),
    "scales": lambda m: m["tensors"][m["inputs"][0]]["quantization"].update(scales=[]),
    "zero point": lambda m: m["tensors"][m["inputs"][0]]["quantization"].update(zero_points=[999]),
    "shape": lambda m: m["tensors"][m["inputs"][0]].update(shape=[1, 1 << 30, 1 << 30, 1]),
    "type": lambda m: m["tensors"][m["inputs"][0]].update(dtype="complex64"),
    "format": lambda m: m.update(format=99),
    "input": lambda m: m.update(inputs=[]),
    "float input": lambda m: m.update(float_inputs=[7]),
    "unknown": lambda m: m.update(surprise=1),
    "cycle": lambda m: m["nodes"].reverse(),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_hostile_archives_are_refused(case: str, tmp_path: Path) -> None:
    whole = quantize(read_model(DIGITS), digits(2)).archive()
    with pytest.raises(ModelError):
        read_model(_edited(whole, tmp_path / "bad.tdm", HOSTILE[case]))


def test_archives_that_unpack_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tdm, "MAX_BYTES", 3 << 20)
    path = tmp_path / "bomb.tdm"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.json", b" ")
        archive.writestr("tensors/0.npy", bytes(4 << 20))
    with pytest.raises(TinydeployError, match="too large"):
        read_model(path)


def test_area_under_curve_counts_pairs() -> None:
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 6, 40).astype(float), random.integers(0, 2, 40)
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    assert area_under_curve(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


def test_int16_keeps_more(tmp_path: Path) -> None:
    graph, samples = read_model(DIGITS), digits(4)
    losses = [
        measure((q := quantize(graph, samples, Settings(activations=kind))).floats, q.integers,
                samples, LITERT).outputs[0]
        for kind in (DType.INT8, DType.INT16)
    ]  # fmt: skip
    assert losses[1] > losses[0]


def test_every_method_is_measured(command: Command, tmp_path: Path) -> None:
    """With 4 bits, methods together beat none; without data there is a warning, and a result."""
    data = _npz(tmp_path, in0=np.load(DIGITS_TEST)["float0"][:6])
    d = command("quantize", DIGITS, "--data", data, "--weights", 4, "--methods")
    found = {m["name"]: m["output_sqnr_db"] for m in d["methods"]}
    assert found["as chosen"] > found["none"] + 1 and len(found) == 10
    d = command("quantize", DIGITS, "--input-range", 0, 1)
    assert "random" in d["warnings"][0] and d["output_sqnr_db"][0] > 20
