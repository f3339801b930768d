"""tinydeploy bench: models times targets, what each costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("bench")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-t", "--target", "targets", multiple=True, metavar="NAME",
              help="May be given several times; default mps2-an386 and riscv-virt.")  # fmt: skip
@click.option("--optimize", "modes", multiple=True,
              type=click.Choice(["speed", "balanced", "size"]),
              help="May be given several times; default balanced.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Write the rows to a .json or .md file.")  # fmt: skip
@options.planning
@options.PROFILE
@options.common
def command(
    models: tuple[Path, ...], targets: tuple[str, ...], modes: tuple[str, ...], out: Path | None,
    allocator: str, schedule: Any, ram: int | None, input_from: str, mac_factor: float,
    profile: str, as_json: bool, verbose: bool, quiet: bool, debug: bool,
    color: bool | None,
) -> int:  # fmt: skip
    """Deploy each of MODELS to each target and tabulate what it costs; every row is proven
    bit-exact. Instructions are emulated and deterministic."""
    from tinydeploy.bench import run_all, write_rows
    from tinydeploy.report.tables import show_rows
    from tinydeploy.targets import load_target

    boards = [load_target(name) for name in targets or ("mps2-an386", "riscv-virt")]
    smallest = min(boards, key=lambda board: board.flash_bytes)
    wanted = options.wanted(schedule, ram, input_from, mac_factor, smallest)
    with options.progress(quiet) as progress:
        rows = run_all(models, boards, modes or ("balanced",), profile, wanted, progress)
    if out:
        write_rows(out, rows)

    def show(console: Any) -> None:
        show_rows(console, rows)

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0 if all(row["exact"] for row in rows) else 7
