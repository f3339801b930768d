"""Share what deploy, verify and profile do before and after they run a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
from numpy.typing import NDArray

from tinydeploy.build.firmware import Firmware
from tinydeploy.cli.options import Screen
from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph
from tinydeploy.ops.execute import run_floats
from tinydeploy.pipeline import Clock, Measured, Prepared
from tinydeploy.report.assemble import assemble
from tinydeploy.report.document import Document, to_json
from tinydeploy.report.terminal import mismatch_text, show_document
from tinydeploy.targets import Target
from tinydeploy.verify.floats import load_floats
from tinydeploy.verify.samples import Samples, load_samples, random_samples

Array = NDArray[Any]


def choose_samples(
    graph: Graph, inputs: Path | None, expect: Path | None, count: int | None, seed: int
) -> Samples:
    """Return the samples that the options ask for; raises UsageError."""
    if inputs is not None:
        return load_samples(graph, inputs, expect, count)
    if expect is not None:
        raise UsageError("--expect needs --inputs", "expected outputs belong to given inputs")
    return random_samples(graph, count or 8, seed)


def load_calibration(graph: Graph, path: Path | None) -> tuple[tuple[Array, ...], ...] | None:
    """Return the samples to quantise a float network with, None where there are none."""
    return load_floats(graph, path).inputs if path else None


def with_floats(samples: Samples, prepared: Prepared, path: Path | None) -> Samples:
    """Add what the float network makes of labelled samples, for comparison."""
    if prepared.floats is None or path is None or samples.labels is None:
        return samples
    graph, real = prepared.floats, load_floats(prepared.floats, path, None, len(samples.inputs))
    return replace(
        samples, floats=tuple(run_floats(graph, x)[graph.outputs[0]] for x in real.inputs)
    )


def finish(
    screen: Screen,
    prepared: Prepared,
    target: Target,
    firmware: Firmware,
    samples: Samples,
    measured: Measured,
    clock: Clock,
    out: Path | None,
    page: Path | None = None,
) -> Document:
    """Print the document, keep it in the output folder, and name a mismatch on stderr.

    `page` is where the HTML page goes, if it is wanted.
    """
    document = assemble(
        prepared.graph, prepared.plan, prepared.profile, prepared.path.name, prepared.macs,
        clock.stages,
        target, firmware, samples, measured.verdict, measured.unit, measured.counts,
        measured.stack_bytes, prepared.front,
    )  # fmt: skip
    if prepared.warnings:
        document = msgspec.structs.replace(document, warnings=list(prepared.warnings))
    if out:
        (out / "report.json").write_text(to_json(document) + "\n", encoding="utf-8")
    if page:
        from tinydeploy.cli.pages import write_page

        write_page(page, document, prepared, target, firmware)
    screen.result(document, lambda console: show_document(console, document, target, out))
    if document.verify and document.verify.first_mismatch:
        click.echo(f"error: {mismatch_text(document)}", err=True)
    return document
