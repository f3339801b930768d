"""tinydeploy tune: the fastest kernel of each node, found by measuring."""

from __future__ import annotations

from pathlib import Path

import click

from tinydeploy.cli import options


@click.command("tune")
@options.MODEL
@options.TARGET
@options.PROFILE
@options.OPTIMIZE
@options.common
def command(
    model: Path, target: str, profile: str, optimize: str, as_json: bool, verbose: bool,
    quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Measure every kernel that could compute each node of MODEL on a target's emulator and
    remember the fastest; 'deploy' uses what is remembered. Safe to interrupt and run again."""
    import dataclasses

    from tinydeploy import pipeline, tuning
    from tinydeploy.errors import UsageError
    from tinydeploy.targets import load_target

    board = load_target(target)
    if board.qemu is None:
        raise UsageError(
            f"target {board.name} has no emulator", "tuning counts instructions in an emulator"
        )
    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        core = pipeline.core_of(board, optimize)
        prepared = pipeline.prepare(model, profile, "greedy", clock, core)
        found = tuning.tune(prepared, board, clock)
    options.Screen(as_json, verbose, color).result(
        {**dataclasses.asdict(found), "cache": str(tuning.cache_path())},
        lambda console: console.print(
            f"{found.before:,} instructions before, {found.after:,} after; "
            f"{found.changed} nodes changed, {found.runs} runs"
        ),
    )
    return 0
