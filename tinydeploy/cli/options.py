"""Share the options that several commands take, and what they turn into."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MODEL = click.argument("model", type=click.Path(path_type=Path))
FOLDER = click.argument("folder", type=click.Path(path_type=Path))
TARGET = click.option(
    "-t", "--target", "target", required=True, metavar="NAME",
    help="A name from 'tinydeploy targets', or a board's .toml file.",
)  # fmt: skip
PROFILE = click.option(
    "--profile", type=click.Choice(["litert", "tflm"]), default="litert", show_default=True,
    help="Whose integer arithmetic to reproduce bit for bit.",
)  # fmt: skip
ALLOCATOR = click.option(
    "--allocator", type=click.Choice(["auto", "greedy", "exact"]), default="auto",
    show_default=True, help="How to place buffers; exact needs the extra 'solver'.",
)  # fmt: skip
OPTIMIZE = click.option(
    "--optimize", type=click.Choice(["speed", "balanced", "size"]), default="balanced",
    show_default=True, help="What kernels are chosen for; speed may widen weights in flash.",
)  # fmt: skip
OPTIMISATION = click.option(
    "-O", "optimisation", type=click.Choice(["0", "1", "2", "3", "s"]), default=None,
    help="The compiler's optimisation level; the default is 2, or s with --optimize size.",
)  # fmt: skip
_PATH = click.Path(path_type=Path, dir_okay=False)


def common(function: F) -> F:
    """Add the options that every command takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option("-v", "--verbose", is_flag=True, help="Say more."),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
        click.option("--debug", is_flag=True, help="Show a traceback on errors."),
        click.option("--color/--no-color", "color", default=None, help="Force colour on or off."),
    ):
        function = option(function)
    return function


DUMP = click.option(
    "--dump-after", type=click.Choice(["import", "passes", "plan"]), default=None,
    help="Print what a stage made, as text, on stderr.",
)  # fmt: skip


def dump(prepared: Any, stage: str | None) -> None:
    """Print the network or the plan as it was after a stage."""
    from tinydeploy.ir.dump import dump_graph
    from tinydeploy.plan.layout import dump_plan

    if stage == "plan":
        click.echo(dump_plan(prepared.plan), err=True)
    elif stage is not None:
        graph = prepared.imported if stage == "import" else prepared.graph
        click.echo(dump_graph(graph), err=True)


_CODE = 32 << 10  # bytes of flash left to code when weights may take more


# Not every click that pyproject.toml admits lets ParamType be subscripted.
class Size(click.ParamType):  # type: ignore[type-arg]
    """Read a number of bytes: 32768, 32K, 1.5M."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        text = str(value).strip().upper().removesuffix("B")
        unit = {"K": 1024, "M": 1024 * 1024}.get(text[-1:], 1)
        try:
            size = float(text.rstrip("KM")) * unit
        except ValueError:
            size = 0.0
        if not 1 <= size < 2**32 or size != int(size):
            self.fail(f"{value!r} is no number of bytes like 32768, 32K or 1.5M", param, ctx)
        return int(size)


def planning(function: F) -> F:
    """Add the options that say which memory plan is wanted."""
    for option in (
        click.option("--input", "input_from", type=click.Choice(["ram", "flash", "streamed"]),
                     default="ram", show_default=True,
                     help="Inputs lie in the arena, or in memory of yours that is only read, or a "
                     "function of yours delivers their rows."),
        click.option("--mac-factor", type=click.FloatRange(1, 4), default=1.0, show_default=True,
                     help="Compute up to this many times the MACs, in strips, to save RAM."),
        click.option("--ram", type=Size(), default=None, metavar="BYTES",
                     help="Take the fastest plan whose arena fits: 32768, 32K. Where it would be "
                     "more than 4 % slower than the fastest, weights may take more flash."),
        click.option("--schedule", type=click.Choice(["auto", "layer", "streamed"]),
                     default="auto", show_default=True,
                     help="Least RAM within 4 % of the fastest plan (the fastest itself with "
                     "--optimize speed; or what fits --ram); each node whole; or row by row for "
                     "least RAM, whatever it costs, or up to a tenth more where it saves as much."),
        ALLOCATOR,
    ):  # fmt: skip
        function = option(function)
    return function


def wanted(
    schedule: Any, ram: int | None, input_from: str, mac_factor: float, board: Any = None
) -> Any:
    """Return what the planning options say; constants must fit a board's flash beside code."""
    from tinydeploy.plan.search import Wanted

    flash = None if board is None else max(board.flash_bytes - _CODE, 0)
    return Wanted(schedule, ram, input_from == "streamed", mac_factor, input_from == "flash", flash)


def quantizing(function: F) -> F:
    """Add the options that say how a float model is quantised."""
    for option in (
        click.option("--input-range", type=float, nargs=2, default=None, metavar="LOW HIGH",
                     help="Where there are no samples: what the inputs range over."),
        click.option("--codebooks/--no-codebooks", "codebooks", default=None,
                     help="Let weights of 4 bits be indices into 16 values where that errs less."),
        click.option("--correct-bias/--no-correct-bias", "correct_bias", default=None,
                     help="Take the mean error of each channel out of its bias."),
        click.option("--equalize/--no-equalize", "equalize", default=None,
                     help="Even out the ranges of channels across layers first."),
        click.option("--rounding", type=click.Choice(["nearest", "squant", "feedback"]),
                     default=None,
                     help="Round weights to the nearest, so that errors cancel (SQuant), or so "
                     "that outputs err least on the samples (default)."),
        click.option("--ranges", type=click.Choice(["min-max", "percentile", "mse"]), default=None,
                     help="How the range of an activation is taken from its values."),
        click.option("--keep", multiple=True, type=click.IntRange(0), metavar="LAYER",
                     help="Keep a layer's weights at 8 bits, by its number in the table; may be "
                     "repeated."),
        click.option("--weights", type=click.Choice(["8", "4", "2"]), default="8",
                     show_default=True, help="Bits of the weights."),
        click.option("--activations", type=click.Choice(["int8", "int16"]), default="int8",
                     show_default=True, help="Type of the values between layers."),
    ):  # fmt: skip
        function = option(function)
    return function


def settings(
    graph: Any, activations: str, weights: str, keep: tuple[int, ...], ranges: str | None,
    rounding: str | None, equalize: bool | None, correct_bias: bool | None,
    codebooks: bool | None, input_range: tuple[float, float] | None,
) -> Any:  # fmt: skip
    """Return what the quantising options say; raises UsageError for a layer that is not there."""
    from tinydeploy.errors import UsageError
    from tinydeploy.ir import DType
    from tinydeploy.quantize.normal import normalise
    from tinydeploy.quantize.quantize import Settings

    count = len(normalise(graph).nodes) if keep else 0
    if unknown := [number for number in keep if number >= count]:
        raise UsageError(
            f"--keep {unknown[0]} is no layer of the model", f"they are numbered 0 to {count - 1}",
            "'tinydeploy quantize --layers' lists them",
        )  # fmt: skip
    given: dict[str, Any] = {
        "ranges": ranges, "rounding": rounding, "equalize": equalize, "correct_bias": correct_bias,
        "codebooks": codebooks, "input_range": input_range,
    }  # fmt: skip
    return Settings(
        activations=DType(activations),
        weight_bits=int(weights),
        node_bits=dict.fromkeys(keep, 8),
        **{name: value for name, value in given.items() if value is not None},
    )


def budgeting(function: F) -> F:
    """Add the options that say what a quantised model may take."""
    for option in (
        click.option("--requantize", is_flag=True,
                     help="Take a model of integers for the float one that it stands for."),
        click.option("--compare", is_flag=True,
                     help="Also say what QuantMCU would choose, simulated."),
        click.option("--front", is_flag=True,
                     help="Also show what less flash or RAM would cost; takes a while."),
        OPTIMIZE,
        click.option("--input", "input_from", type=click.Choice(["ram", "flash", "streamed"]),
                     default="ram", show_default=True, help="Where inputs lie, as for 'plan'."),
        click.option("--ram", type=Size(), default=None, metavar="BYTES",
                     help="Keep activations in 8, 4 or 2 bits so that the arena fits."),
        click.option("--flash", type=Size(), default=None, metavar="BYTES",
                     help="Give weights 8, 4 or 2 bits so that they fit, with biases and tables; "
                     "code comes on top."),
        click.option("-t", "--target", default=None, metavar="NAME",
                     help="Whose kernels a budget counts with."),
    ):  # fmt: skip
        function = option(function)
    return function


def sampling(function: F) -> F:
    """Add the options that say what to run the device on."""
    for option in (
        click.option("--samples", type=click.IntRange(1, 100_000), default=None,
                     help="How many random inputs (default 8), or at most how many of --inputs."),
        click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random inputs."),
        click.option("--expect", type=_PATH, default=None,
                     help=".npz with out0, out1, ...: what the outputs must be."),
        click.option("--inputs", "--data", "inputs", type=_PATH, default=None,
                     help=".npz with in0, in1, ... (samples along the first axis) and labels."),
    ):  # fmt: skip
        function = option(function)
    return function


def placing(function: F) -> F:
    """Add the options that say where the device is."""
    port = click.option(
        "--port", metavar="URL", default=None,
        help="Serial port of a board: /dev/ttyACM0, COM3, socket://, rfc2217://.",
    )  # fmt: skip
    return placing_many(port(function))


def placing_many(function: F) -> F:
    """Add the options that say where devices are, but for their ports."""
    for option in (
        click.option("--timeout", type=click.FloatRange(1, 3600), default=60.0, show_default=True,
                     help="Longest silence of the device, in seconds."),
        click.option("--link", type=click.Choice(["semihosting", "uart"]), default="semihosting",
                     show_default=True,
                     help="How frames reach QEMU: its debug channel, or its emulated UART "
                     "(the very path of a board, but 40 kB/s)."),
        click.option("--where", type=click.Choice(["qemu", "host", "board"]), default=None,
                     help="Where to run; by default where the target is."),
    ):  # fmt: skip
        function = option(function)
    return function


@dataclass(slots=True)
class Screen:
    """Print results on stdout and progress on stderr."""

    as_json: bool
    verbose: bool
    color: bool | None

    def console(self) -> Any:
        from rich.console import Console

        return Console(
            force_terminal=self.color or None,
            no_color=self.color is False or None,
            highlight=False,
            width=None if sys.stdout.isatty() else 160,
        )

    def result(self, document: object, show: Callable[[Any], None]) -> None:
        """Print a document as JSON, or have it shown on a console."""
        if self.as_json:
            from tinydeploy.report.document import to_json

            click.echo(to_json(document))
        else:
            show(self.console())


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a display of stages with bars on a terminal's stderr; elsewhere it shows nothing."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task: list[Any] = []
    current = ""
    with bars:

        def show(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                for old in task:
                    bars.remove_task(old)
                task[:] = [bars.add_task(stage, total=None, text="")]
            text = f"{done}/{total}" if total else ""
            bars.update(task[0], completed=done, total=total or None, text=text)

        yield show
