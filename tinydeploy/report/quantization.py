"""Turn a quantised network and its losses into one document, and show it on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType
from tinydeploy.quantize.effects import Effect
from tinydeploy.quantize.measure import Measured
from tinydeploy.quantize.quantize import Quantized
from tinydeploy.report.mixed import MixedDocument, show_front
from tinydeploy.report.tables import show_rows
from tinydeploy.verify.accuracy import accuracy, metric_for

Array = NDArray[Any]

_SHOWN = 5
# Below this many decibels a layer's values are more than a tenth error (20 log10 of 10).
_BAD = 20.0


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """Give the ratio of signal to error after one node, and what the node itself took from it.

    `index` is the node's place in execution order. Both ratios are in decibels; `lost` compares
    with the worst of the node's inputs. None stands for no error at all.
    """

    index: int
    name: str
    op: str
    weight_bits: int | None
    sqnr_db: float | None
    lost_db: float | None


class Scores(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Give accuracy over labelled samples; metric is top1 or auc, figures are from 0 to 1."""

    metric: str
    samples: int
    floats: float
    reference: float


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """Give what the outputs are worth with one method of quantisation alone, or several."""

    name: str
    output_sqnr_db: float | None
    agreement: float


class QuantizationDocument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold what one run of the quantiser did and what it cost."""

    model: str
    settings: dict[str, Any]
    calibration_samples: int
    measured_samples: int
    output_sqnr_db: list[float | None]
    agreement: float
    weights_bytes_before: int
    weights_bytes: int
    layers: list[Layer]
    advice: list[str]
    warnings: list[str]
    accuracy: Scores | None = None
    methods: list[Method] = []
    mixed: MixedDocument | None = None
    seconds: float = 0.0


def describe(
    name: str,
    quantized: Quantized,
    measured: Measured,
    labels: Array | None,
    seconds: float,
    tried: Sequence[Effect] = (),
    mixed: MixedDocument | None = None,
) -> QuantizationDocument:
    """Return the document of one run; `labels` are of the samples measured."""
    layers = _layers(quantized, measured)
    return QuantizationDocument(
        model=name,
        settings=_settings(quantized),
        calibration_samples=len(quantized.samples),
        measured_samples=measured.samples,
        output_sqnr_db=[_finite(v) for v in measured.outputs],
        agreement=measured.agreement,
        weights_bytes_before=sum(t.bytes for t in quantized.floats.tensors if t.constant),
        weights_bytes=weights_bytes(quantized),
        layers=layers,
        advice=_advice(layers, quantized),
        warnings=list(quantized.warnings),
        accuracy=None if labels is None else _scores(measured, labels),
        methods=[
            Method(name=e.method, output_sqnr_db=_finite(e.sqnr), agreement=e.agreement)
            for e in tried
        ],
        mixed=mixed,
        seconds=seconds,
    )


def _scores(measured: Measured, labels: Array) -> Scores:
    metric = metric_for(measured.inputs[0], measured.floats[0], labels)
    return Scores(
        metric=metric,
        samples=measured.samples,
        floats=accuracy(metric, measured.inputs, measured.floats, labels),
        reference=accuracy(metric, measured.inputs, measured.integers, labels),
    )


def _finite(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def _settings(quantized: Quantized) -> dict[str, Any]:
    settings = quantized.settings
    found = {f.name: getattr(settings, f.name) for f in fields(settings)}
    found["activations"] = settings.activations.value
    found["node_bits"] = {
        quantized.floats.nodes[p].name: bits for p, bits in quantized.settings.node_bits.items()
    }
    found["narrow"] = {quantized.floats.tensors[t].name: b for t, b in settings.narrow.items()}
    return found


def weights_bytes(quantized: Quantized) -> int:
    """Return the bytes of weights and biases as packed: 4-bit weights two to a byte."""
    graph, total = quantized.floats, 0
    wide = 8 if quantized.settings.activations is DType.INT16 else 4
    for position, node in enumerate(graph.nodes):
        constants = [graph.tensor(i).elements for i in node.inputs[1:] if i is not None]
        if quantized.weighted(position):
            total += -(-constants[0] * quantized.bits_of(position) // 8) + wide * sum(constants[1:])
    return total


def _layers(quantized: Quantized, measured: Measured) -> list[Layer]:
    graph = quantized.floats
    after = {loss.tensor: loss.sqnr for loss in measured.nodes}
    layers = []
    for position, (node, loss) in enumerate(zip(graph.nodes, measured.nodes, strict=True)):
        before = min((after.get(i, np.inf) for i in graph.activation_inputs(node)), default=np.inf)
        lost = before - loss.sqnr if np.isfinite(before) else None
        layers.append(
            Layer(
                index=position,
                name=node.name,
                op=node.op,
                weight_bits=quantized.bits_of(position) if quantized.weighted(position) else None,
                sqnr_db=_finite(loss.sqnr),
                lost_db=None if lost is None else _finite(lost),
            )
        )
    return layers


def worst(layers: list[Layer], count: int = _SHOWN) -> list[Layer]:
    """Return the layers that lose most by themselves, the worst first."""
    ranked = [layer for layer in layers if layer.lost_db is not None and layer.lost_db > 0]
    return sorted(ranked, key=lambda layer: -(layer.lost_db or 0))[:count]


def _advice(layers: list[Layer], quantized: Quantized) -> list[str]:
    """Say what to try, from what the worst layers have in common."""
    found = []
    output = layers[-1].sqnr_db if layers else None
    narrow = [x for x in worst(layers) if x.weight_bits is not None and x.weight_bits < 8]
    if narrow and quantized.settings.weight_bits < 8:
        found.append(
            f"layer {narrow[0].index} alone loses {narrow[0].lost_db:.1f} dB: --keep "
            f"{narrow[0].index} leaves its weights at 8 bits"
        )
    if output is not None and output < _BAD and quantized.settings.activations.value == "int8":
        found.append("int16 activations lose less: --activations int16 (twice the RAM)")
    if output is not None and output < 2 * _BAD:
        found.append("--methods measures what every other method would do here")
    return found


def _short(name: str) -> str:
    """Return the end of a name; converters join those of all layers that they fused."""
    return name.split(";")[0][-40:]


def show(console: Any, d: QuantizationDocument, every: bool) -> None:
    """Print what was done and what it cost; all layers if wanted, else the worst."""
    from rich.table import Table

    style = ", ".join(f"{k} {v}" for k, v in d.settings.items() if v not in ({}, False, None)
                      and not (d.mixed and isinstance(v, dict)))  # fmt: skip
    console.print(f"{d.model}  {style}", markup=False)
    saved = 100 * (1 - d.weights_bytes / max(d.weights_bytes_before, 1))
    console.print(
        f"weights   {d.weights_bytes:,} bytes, {d.weights_bytes_before:,} as float ({saved:.0f} % "
        "less)"
    )
    if d.accuracy:
        a = d.accuracy
        unit = "top-1" if a.metric == "top1" else "area under the ROC curve"
        console.print(
            f"accuracy  {100 * a.reference:.2f} % in integers, {100 * a.floats:.2f} % in float "
            f"({unit}, {a.samples} samples)"
        )
    values = ", ".join("exact" if v is None else f"{v:.1f} dB" for v in d.output_sqnr_db)
    console.print(
        f"output    signal to error {values}; the same largest output for "
        f"{100 * d.agreement:.1f} % of {d.measured_samples} samples"
    )
    rows = d.layers if every else worst(d.layers)
    if rows:
        table = Table(box=None, pad_edge=False, title_justify="left",
                      title=None if every else "what loses most")  # fmt: skip
        for heading in ("", "layer", "operator", "bits", "dB after it", "dB lost in it"):
            words = heading in ("layer", "operator")
            table.add_column(heading, justify="left" if words else "right")
        for x in rows:
            after = "exact" if x.sqnr_db is None else f"{x.sqnr_db:.1f}"
            lost = "" if x.lost_db is None else f"{x.lost_db:.1f}"
            table.add_row(str(x.index), _short(x.name), x.op, str(x.weight_bits or ""), after, lost)
        console.print(table)
    if d.methods:
        show_rows(
            console,
            [
                {
                    "method": x.name,
                    "output dB": "exact" if x.output_sqnr_db is None else f"{x.output_sqnr_db:.1f}",
                    "same largest output": f"{100 * x.agreement:.1f} %",
                }
                for x in d.methods
            ],
        )
    if d.mixed:
        show_front(console, d.mixed)
    for line in d.advice:
        console.print(f"try       {line}", markup=False)
    for line in d.warnings:
        console.print(f"warning   {line}", markup=False)
    console.print(f"time      {d.seconds:.1f} s")
