"""tinydeploy lut: a nonlinear function as a table, for integer code and for hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options

METHODS = ("optimal", "gqa", "uniform", "exact")


@click.command("lut")
@click.argument("function")
@click.option(
    "--entries",
    type=click.IntRange(2, 64),
    default=8,
    show_default=True,
    help="Segments of a piecewise-linear table.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="optimal",
    show_default=True,
    help="Least squared error; genetic search as GQA-LUT; equal widths; every value.",
)
@click.option(
    "--range",
    "bounds",
    type=(float, float),
    default=None,
    metavar="LO HI",
    help="Where the function is wanted; by default the function's usual range.",
)
@click.option(
    "--bits",
    type=click.Choice(["8", "16"]),
    default="8",
    show_default=True,
    help="Bits of stored inputs and outputs.",
)
@click.option("--compare", is_flag=True, help="Tabulate all methods; a .svg draws all of them.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of the genetic search.")
@click.option(
    "--generations",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="Generations of the genetic search.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write a .c, .h, .hex (words for hardware) or .svg file.",
)
@options.common
def command(
    function: str, entries: int, method: str, bounds: tuple[float, float] | None, bits: str,
    compare: bool, seed: int, generations: int, out: Path | None, as_json: bool, verbose: bool,
    quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Tabulate FUNCTION: gelu, hswish, exp, div, rsqrt, tanh, sigmoid, silu, elu, sin, cos."""
    from tinydeploy.errors import UsageError
    from tinydeploy.report.luts import Request, calculate, write
    from tinydeploy.report.tables import show_rows

    request = Request.checked(function, entries, bounds, int(bits), seed, generations)
    if out is not None and out.suffix not in (".c", ".h", ".hex", ".svg"):
        raise UsageError(f"--out {out} has no known ending", ".c, .h, .hex and .svg are known")
    if out is not None and out.suffix != ".svg" and (method == "exact" or compare):
        raise UsageError(f"--out {out} needs one piecewise-linear table", "--method optimal is one")
    wanted = METHODS if compare else (method,)
    with options.progress(quiet) as progress:
        found = [
            calculate(request, m, lambda done, total: progress("search", done, total))
            for m in wanted
        ]
    if out is not None:
        write(request, found, out)
    document = [f.row() for f in found] if compare else {**found[0].row(), **found[0].lines()}

    def show(console: Any) -> None:
        show_rows(console, [f.shown() for f in found])
        if not compare and method != "exact":
            console.print()
            show_rows(console, found[0].segments())

    options.Screen(as_json, verbose, color).result(document, show)
    return 0
