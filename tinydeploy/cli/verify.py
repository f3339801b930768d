"""tinydeploy verify: run a deployment folder's firmware and compare every output bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("verify")
@options.FOLDER
@options.sampling
@options.placing
@options.common
def command(
    folder: Path, inputs: Path | None, expect: Path | None, seed: int, samples: int | None,
    where: Any, port: str | None, timeout: float, link: Any, as_json: bool, verbose: bool,
    quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Run the firmware in FOLDER (made by 'deploy --out') and compare every output bit.

    The first differing node, tensor and index are named; exit code 7.
    """
    from tinydeploy import pipeline
    from tinydeploy.build.folder import load_firmware
    from tinydeploy.cli.outcome import choose_samples, finish

    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        prepared, target, _ = pipeline.reopen(folder, clock)
        firmware = load_firmware(folder, target)
        chosen = choose_samples(prepared.graph, inputs, expect, samples, seed)
        measured = pipeline.run(
            prepared, firmware, target, chosen, clock, pipeline.Place(where, port, timeout, link)
        )
    screen = options.Screen(as_json, verbose, color)
    document = finish(screen, prepared, target, firmware, chosen, measured, clock, None)
    return 0 if measured.verdict.bit_exact and document else 7
