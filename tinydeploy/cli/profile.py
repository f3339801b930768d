"""tinydeploy profile: what each node of a deployed network costs on its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("profile")
@options.FOLDER
@click.option("--runs", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Inferences to run; the figures are of the median one.")  # fmt: skip
@options.placing
@options.common
def command(
    folder: Path, runs: int, where: Any, port: str | None, timeout: float, link: Any, as_json: bool,
    verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Count what each node of the firmware in FOLDER costs: instructions in an emulator,
    cycles on a board. The input is the same random one every run."""
    from tinydeploy import pipeline
    from tinydeploy.build.folder import load_firmware
    from tinydeploy.cli.outcome import choose_samples, finish

    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        prepared, target, _ = pipeline.reopen(folder, clock)
        firmware = load_firmware(folder, target)
        chosen = choose_samples(prepared.graph, None, None, 1, 0)
        measured = pipeline.profile(
            prepared,
            firmware,
            target,
            chosen,
            runs,
            clock,
            pipeline.Place(where, port, timeout, link),
        )
    screen = options.Screen(as_json, verbose, color)
    finish(screen, prepared, target, firmware, chosen, measured, clock, None)
    return 0 if measured.verdict.bit_exact else 7
