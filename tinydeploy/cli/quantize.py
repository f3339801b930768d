"""tinydeploy quantize: a float model to integers, and what that costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("quantize")
@options.MODEL
@click.option("-o", "--out", type=_FILE, default=None,
              help="Write the integer model: .tdm, or .tflite for other tools.")  # fmt: skip
@click.option("--data", type=_FILE, default=None,
              help="Samples: .npz with in0, in1, ... (and labels), or .npy.")  # fmt: skip
@click.option("--test", type=_FILE, default=None,
              help="Other samples to measure the loss on; else those of --data.")  # fmt: skip
@click.option("--labels", type=_FILE, default=None,
              help=".npy with the true class of each measured sample.")  # fmt: skip
@click.option("--samples", type=click.IntRange(1, 100_000), default=None,
              help="Use at most so many samples.")  # fmt: skip
@options.quantizing
@options.budgeting
@click.option("--methods", is_flag=True,
              help="Measure what each method does by itself; ten times the time.")  # fmt: skip
@click.option("--layers", is_flag=True, help="Show every layer, not only the worst.")
@options.PROFILE
@options.common
def command(
    model: Path, out: Path | None, data: Path | None, test: Path | None, labels: Path | None,
    samples: int | None, activations: str, weights: str, keep: tuple[int, ...], ranges: str | None,
    rounding: str | None, equalize: bool | None, correct_bias: bool | None,
    codebooks: bool | None, input_range: tuple[float, float] | None, layers: bool, methods: bool,
    target: str | None, flash: int | None, ram: int | None, input_from: str, optimize: str,
    front: bool, compare: bool, requantize: bool,
    profile: str, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Turn the float MODEL into integers, and say what that costs, layer by layer.

    MODEL is a .tflite, .keras, .h5, .onnx or a SavedModel's folder. Every figure compares the
    integer reference, which the device equals bit for bit, with the float network.
    """
    from tinydeploy.cli.budget import Asked, within
    from tinydeploy.errors import UsageError
    from tinydeploy.importers import read_model
    from tinydeploy.numerics.profile import profile_named
    from tinydeploy.quantize.effects import effects
    from tinydeploy.quantize.measure import measure
    from tinydeploy.quantize.normal import is_float
    from tinydeploy.quantize.quantize import quantize
    from tinydeploy.quantize.restore import to_float
    from tinydeploy.report.quantization import describe, show
    from tinydeploy.verify.floats import load_floats

    graph = read_model(model)
    if requantize and not is_float(graph):
        graph = to_float(graph)
    if not is_float(graph):
        raise UsageError(
            f"{model} is quantised already", "its layers compute in integers",
            "deploy it as it is, quantise the float model it was made from, or --requantize",
        )  # fmt: skip
    if out and out.suffix not in (".tdm", ".tflite"):
        raise UsageError(f"{out} should end in .tdm or .tflite", "these are what can be written")
    calibration = load_floats(graph, data, None if test else labels, samples) if data else None
    tested = load_floats(graph, test, labels, samples) if test else calibration
    if labels and tested is None:
        raise UsageError("--labels needs the samples they belong to", "", "give --data or --test")
    settings = options.settings(
        graph, activations, weights, keep, ranges, rounding, equalize, correct_bias, codebooks,
        input_range,
    )  # fmt: skip
    started = time.perf_counter()
    with options.progress(quiet) as progress:
        given = calibration.inputs if calibration else None
        asked, mixed = Asked(target, flash, ram, input_from, optimize, front, compare), None
        if asked.anything:
            quantized, mixed = within(graph, given, settings, asked, profile, progress)
        else:
            quantized = quantize(
                graph, given, settings, lambda done, total: progress("calibrate", done, total)
            )
        measured = measure(
            quantized.floats,
            quantized.integers,
            tested.inputs if tested else quantized.samples,
            profile_named(profile),
            lambda done, total: progress("measure", done, total),
        )
        tried = []
        if methods:
            tried = effects(
                graph,
                quantized.samples,
                settings,
                tested.inputs if tested else None,
                profile_named(profile),
                lambda done, total: progress("methods", done, total),
            )
    document = describe(
        model.name,
        quantized,
        measured,
        tested.labels if tested else None,
        time.perf_counter() - started,
        tried,
        mixed,
    )
    if out:
        _write(out, quantized, document)
    screen = options.Screen(as_json, verbose, color)
    screen.result(document, lambda console: show(console, document, layers or verbose))
    if out and not as_json:
        click.echo(f"written   {out}")
    return 0


def _write(out: Path, quantized: Any, document: Any) -> None:
    import msgspec

    from tinydeploy.errors import UsageError
    from tinydeploy.export import tflite

    if out.suffix == ".tflite":
        content = tflite.to_bytes(quantized.model)
    else:
        about = msgspec.to_builtins(document)
        del about["seconds"]  # equal runs give equal files
        content = quantized.archive(about)
    try:
        out.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {out}", error.strerror or "") from error
