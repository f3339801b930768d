"""tinydeploy flash: the firmware of a deployment folder onto a board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options

RUNNERS = ["probe-rs", "pyocd", "openocd", "esptool", "picotool", "uf2", "gdb"]


def choosing(function: options.F) -> options.F:
    """Add the options that say with what, and through which probe, to flash."""
    for option in (
        click.option("--probe", metavar="ID", default=None,
                     help="Which one, where several are connected: a probe's serial number, a "
                     "serial port (esptool), a drive's folder (uf2), HOST:PORT of a gdb server."),
        click.option("--runner", type=click.Choice(RUNNERS), default=None,
                     help="The program to flash with; by default the first of the board's list "
                     "that is installed."),
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("flash")
@options.FOLDER
@choosing
@click.option("--timeout", type=click.FloatRange(1, 3600), default=180.0, show_default=True,
              help="Most seconds that flashing may take.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the command lines; do not run them.")
@options.common
def command(
    folder: Path, runner: str | None, probe: str | None, timeout: float, dry_run: bool,
    as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Write the firmware in FOLDER (made by 'deploy --out') to its board.

    Then 'tinydeploy verify FOLDER --port URL' proves it there. Exit codes: 5 nothing to flash
    with, 6 flashing failed.
    """
    from tinydeploy.manifest import load_board, read_manifest
    from tinydeploy.run.flash.flash import plan_flash, run_flash

    target = load_board(folder, read_manifest(folder))
    plan = plan_flash(folder.resolve() / "firmware.elf", target, runner, probe)
    screen = options.Screen(as_json, verbose, color)
    figures: dict[str, Any] = {
        "target": target.name,
        "runner": plan.runner.name,
        "commands": plan.commands,
        "folder": str(plan.folder),
    }
    if dry_run:
        screen.result(figures, lambda console: click.echo("\n".join(plan.lines())))
        return 0
    with options.progress(quiet) as progress:
        progress("flash", 0, 0)
        done = run_flash(plan, timeout)
    if verbose:
        click.echo(done.output, err=True)
    screen.result(
        {**figures, "seconds": done.seconds},
        lambda console: click.echo(
            f"flashed {target.name} with {done.runner} in {done.seconds:.1f} s"
        ),
    )
    return 0
