"""tinydeploy generate: the C of a model, without building it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("generate")
@options.MODEL
@click.option("-t", "--target", default="host", show_default=True, metavar="NAME",
              help="Whose kernels to choose.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True,
              help="Folder for the sources, or a .zip file.")  # fmt: skip
@options.PROFILE
@options.planning
@options.OPTIMIZE
@options.DUMP
@options.common
def command(
    model: Path, target: str, out: Path, profile: str, allocator: str, schedule: Any,
    ram: int | None, input_from: str, mac_factor: float, optimize: str,
    dump_after: str | None, as_json: bool,
    verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Write the C of MODEL: plain C99 that needs no library and no build system of ours."""
    from tinydeploy import pipeline
    from tinydeploy.build.size import rooms_of
    from tinydeploy.codegen import SourceTree
    from tinydeploy.errors import UsageError
    from tinydeploy.targets import load_target

    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        board = load_target(target)
        core = pipeline.core_of(board, optimize)
        prepared = pipeline.prepare(
            model, profile, allocator, clock, core,
            wanted=options.wanted(schedule, ram, input_from, mac_factor, board),
            rooms=rooms_of(board),
        )  # fmt: skip
        generated = pipeline.generate_sources(prepared, board, clock)
    options.dump(prepared, dump_after)
    # firmware_model.c belongs to the firmware, not to a user's own program.
    sources = {k: v for k, v in generated.sources.items() if k != "firmware_model.c"}
    tree = SourceTree.of(sources)
    try:
        if out.suffix == ".zip":
            out.write_bytes(tree.zip())
        else:
            tree.write(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}", error.strerror or str(error)) from error
    figures = {
        "files": list(tree),
        "digest": generated.digest.hex(),
        "arena_bytes": prepared.plan.arena_bytes,
        "const_bytes": generated.const_bytes,
    }
    options.Screen(as_json, verbose, color).result(
        figures,
        lambda console: console.print(
            f"{len(tree)} files in {out}; include {generated.name}.h, which says how to use it"
        ),
    )
    return 0
