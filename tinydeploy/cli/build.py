"""tinydeploy build: build a deployment folder again from the sources in it."""

from __future__ import annotations

from pathlib import Path

import click

from tinydeploy.cli import options


@click.command("build")
@options.FOLDER
@options.common
def command(
    folder: Path, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None
) -> int:
    """Build FOLDER (made by 'deploy --out') again, with whatever its sources are now."""
    from tinydeploy import pipeline
    from tinydeploy.manifest import load_board, read_manifest

    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        target = load_board(folder, read_manifest(folder))
        firmware = pipeline.rebuild_folder(folder, target, clock)
    figures = {
        "target": target.name,
        "flash_bytes": firmware.flash_bytes,
        "ram_bytes": firmware.ram_bytes,
        "code_bytes": firmware.code_bytes,
        "const_bytes": firmware.model_const_bytes,
    }
    options.Screen(as_json, verbose, color).result(
        figures,
        lambda console: console.print(
            f"built {firmware.elf.name} for {target.name}: "
            f"flash {firmware.flash_bytes:,} bytes, RAM {firmware.ram_bytes:,} bytes"
        ),
    )
    return 0
