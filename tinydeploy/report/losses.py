"""Turn float networks into a table of what each way to quantise them costs in accuracy.

python -m tinydeploy.report.losses docs/accuracy.md --models FOLDER brings that page up to date.
FOLDER holds mlperf_tiny/{kws,ic,vww,ad}_float.tflite and _int8.tflite, as MLCommons publishes them
(github.com/mlcommons/tiny), and for ad the features of some recordings (ad_normal_id_01.bin).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.importers import read_model
from tinydeploy.ir import DType, Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_floats, run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.quantize.data_free import made_up_samples
from tinydeploy.quantize.effects import plain
from tinydeploy.quantize.measure import Measured, decibels, measure, to_integers, to_real
from tinydeploy.quantize.normal import normalise
from tinydeploy.quantize.quantize import Settings, quantize
from tinydeploy.report.quantization import weights_bytes
from tinydeploy.report.tables import markdown
from tinydeploy.verify.accuracy import accuracy, metric_for
from tinydeploy.verify.floats import load_floats

Array = NDArray[Any]
Samples = Sequence[Sequence[Array]]
LITERT = PROFILES["litert"]
_FEATURES = 640  # of one input of the MLPerf Tiny anomaly detector

WAYS: tuple[tuple[str, Settings], ...] = (
    ("int8, no method", plain(Settings())),
    ("int8", Settings()),
    ("int16 activations", Settings(activations=DType.INT16)),
    ("4-bit weights, no method", plain(Settings(weight_bits=4))),
    ("4-bit weights", Settings(weight_bits=4)),
    ("4-bit weights, codebooks", Settings(weight_bits=4, codebooks=True)),
    ("2-bit weights", Settings(weight_bits=2)),
)


@dataclass(frozen=True, slots=True)
class Case:
    """Hold a float network, its published int8 form if there is one, and samples."""

    name: str
    graph: Graph
    published: Graph | None
    calibration: Samples
    tested: Samples
    labels: Array | None
    data: str


def example(folder: Path) -> Case:
    """Return the project's own network; half of its images calibrate, the others measure."""
    graph = read_model(folder / "digits_float.tflite")
    samples = load_floats(graph, folder / "digits_test.npz")
    half = len(samples.inputs) // 2
    labels = None if samples.labels is None else samples.labels[half:]
    published = read_model(folder / "digits_int8.tflite")
    return Case("digits", graph, published, samples.inputs[:half], samples.inputs[half:], labels,
                "handwritten digits")  # fmt: skip


def mlperf(folder: Path) -> Iterator[Case]:
    """Yield the networks of MLPerf Tiny, with random images where no data come with them."""
    for name in ("kws", "ic", "vww", "ad"):
        graph = read_model(folder / f"{name}_float.tflite")
        published = read_model(folder / f"{name}_int8.tflite")
        whole = run_passes(published, LITERT, optimise=False)
        if name == "ad":
            rows = np.fromfile(folder / "ad_normal_id_01.bin", np.float32).reshape(-1, _FEATURES)
            samples: list[list[Array]] = [[row[None]] for row in rows]
            data = "features of recordings"
        else:
            inp = whole.tensors[whole.inputs[0]]
            low, high = ((v - inp.zero_point) * inp.scale for v in (-128, 127))
            samples, data = made_up_samples(graph, (low, high)), "random, 1/f spectrum"
        half = len(samples) // 2
        yield Case(name, graph, whole, samples[:half], samples[half:], None, data)


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Return one row per way to quantise a network."""
    floats = normalise(case.graph)
    exact = [run_floats(floats, s)[floats.outputs[0]] for s in case.tested]
    bytes_in_float = sum(t.bytes for t in floats.tensors if t.constant)
    rows = [_row(case, "float", bytes_in_float, np.inf, 1.0, exact)]
    if case.published is not None:
        graph = run_passes(case.published, LITERT, optimise=False)
        out = graph.outputs[0]
        own = [
            to_real(graph, out, run_outputs(graph, to_integers(graph, s), LITERT)[0])
            for s in case.tested
        ]
        signal = sum(float((e.astype(np.float64) ** 2).sum()) for e in exact)
        noise = sum(
            float(((o.reshape(e.shape) - e).astype(np.float64) ** 2).sum())
            for o, e in zip(own, exact, strict=True)
        )
        agreed = np.mean([o.argmax() == e.argmax() for o, e in zip(own, exact, strict=True)])
        size = sum(t.bytes for t in graph.tensors if t.constant)
        rows.append(_row(case, "int8, as published", size, decibels(signal, noise),
                         float(agreed), own))  # fmt: skip
    for name, settings in WAYS:
        result = quantize(case.graph, case.calibration, settings)
        found: Measured = measure(result.floats, result.integers, case.tested, LITERT)
        rows.append(_row(case, name, weights_bytes(result), found.outputs[0], found.agreement,
                         found.integers))  # fmt: skip
    return rows


def _row(
    case: Case, way: str, size: int, sqnr: float, agreement: float, outputs: Sequence[Array]
) -> dict[str, Any]:
    score = ""
    if case.labels is not None:
        inputs = [s[0] for s in case.tested]
        metric = metric_for(inputs[0], outputs[0], case.labels)
        score = f"{100 * accuracy(metric, inputs, outputs, case.labels):.1f} %"
    return {
        "network": case.name,
        "form": way,
        "weights, bytes": size,
        "output SQNR, dB": "" if np.isinf(sqnr) else f"{sqnr:.1f}",
        # An autoencoder has no largest output that would mean something.
        "same class": "" if outputs[0].size > 100 else f"{100 * agreement:.0f} %",
        "accuracy": score,
    }


def main() -> None:
    """Write the table between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--example", type=Path, default=Path("examples/digits"))
    parser.add_argument("--models", type=Path)
    given = parser.parse_args()
    cases = [example(given.example)]
    if given.models:
        cases += mlperf(given.models / "mlperf_tiny")
    table = markdown([row for case in cases for row in rows_of(case)])
    begin, end = "<!-- begin losses -->", "<!-- end losses -->"
    text = given.page.read_text(encoding="utf-8")
    block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    given.page.write_text(block.sub(lambda _: f"{begin}\n{table}{end}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
