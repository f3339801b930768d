"""tinydeploy export: the C of a model as a library for other build systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options

_FORMATS = ("cmake", "arduino", "platformio", "zephyr", "espidf", "cmsis-pack")
# What a deployment folder has decided already.
_DECIDED = (
    "target", "profile", "allocator", "schedule", "ram", "input_from", "mac_factor", "optimize",
)  # fmt: skip


@click.command("export")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-f", "--format", "kind", type=click.Choice(_FORMATS), required=True,
              help="The build system to export for.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True,
              help="Folder for the library, or a .zip (.pack for cmsis-pack).")  # fmt: skip
@click.option("--author", metavar="NAME", default=None, help="Who publishes the library.")
@click.option("--url", metavar="URL", default=None, help="Where it is published.")
@click.option("--release", metavar="X.Y.Z", default=None,
              help="Version of the library; by default that of tinydeploy.")  # fmt: skip
@click.option("-t", "--target", default="host", show_default=True, metavar="NAME",
              help="Whose kernels to choose for a model; those of host are portable.")  # fmt: skip
@options.PROFILE
@options.planning
@options.OPTIMIZE
@options.common
def command(
    source: Path, kind: str, out: Path,
    author: str | None, url: str | None, release: str | None, target: str, profile: str,
    allocator: str, schedule: Any, ram: int | None, input_from: str, mac_factor: float,
    optimize: str, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Write SOURCE, a folder made by 'deploy --out' or a model, as a library for a build system.

    The library comes with an example that runs the network on known inputs and compares its
    outputs bit for bit.
    """
    from tinydeploy import pipeline
    from tinydeploy.build.size import rooms_of
    from tinydeploy.export.formats import FORMATS
    from tinydeploy.export.library import Publisher, library_of
    from tinydeploy.export.output import write
    from tinydeploy.targets import load_target

    said = {"author": author, "url": url, "version": release}
    publisher = Publisher(**{k: v for k, v in said.items() if v is not None}).checked()
    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        if source.is_dir():
            _refuse_decided()
            prepared, board, manifest = pipeline.reopen(source, clock)
            sources: Mapping[str, bytes] = _deployed(source, manifest.digest)
        else:
            board = load_target(target)
            prepared = pipeline.prepare(
                source, profile, allocator, clock, pipeline.core_of(board, optimize),
                wanted=options.wanted(schedule, ram, input_from, mac_factor, board),
                rooms=rooms_of(board),
            )  # fmt: skip
            sources = pipeline.generate_sources(prepared, board, clock).sources
        with clock.stage("export"):
            library = library_of(
                sources, prepared.graph, prepared.plan, prepared.profile, board,
                prepared.path.name, publisher,
            )  # fmt: skip
            tree = FORMATS[kind](library)
            write(tree, library.name, out, top=kind != "cmsis-pack")
    figures = {
        "format": kind,
        "library": library.name,
        "version": publisher.version,
        "cores": library.machine.title,
        "files": list(tree),
        "digest": tree.digest(),
        "arena_bytes": library.arena_bytes,
        "self_test_digest": library.digest,
    }
    options.Screen(as_json, verbose, color).result(
        figures,
        lambda console: console.print(
            f"{len(tree)} files in {out}, for {library.machine.title}; README.md says how to use it"
        ),
    )
    return 0


def _refuse_decided() -> None:
    """Raise UsageError where options say again what a deployment folder has decided."""
    from click.core import ParameterSource

    from tinydeploy.errors import UsageError

    context = click.get_current_context()
    for name in _DECIDED:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "input" if name == "input_from" else name.replace("_", "-")
            raise UsageError(
                f"--{option} is for models", "a deployment folder was planned already",
                "deploy again with it, or leave it out",
            )  # fmt: skip


def _deployed(folder: Path, digest: str) -> dict[str, bytes]:
    """Return the C in a deployment folder; raises UsageError if it is not what was deployed."""
    from tinydeploy.codegen import SourceTree
    from tinydeploy.errors import UsageError

    try:
        files = {p.name: p.read_bytes() for p in (folder / "model").iterdir() if p.is_file()}
    except OSError as error:
        raise UsageError(f"cannot read {folder / 'model'}", error.strerror or "") from error
    # The firmware's own part is not in the digest, which it holds.
    files.pop("firmware_model.c", None)
    if SourceTree.of(files).digest()[:32] != digest:
        raise UsageError(
            f"{folder / 'model'} is not what was deployed", "its files were changed",
            "deploy into the folder again, or export the model itself",
        )  # fmt: skip
    return files
