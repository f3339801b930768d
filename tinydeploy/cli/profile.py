"""tinydeploy profile: what each node of a deployed network costs on its device."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("profile")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--runs", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Inferences to run.")  # fmt: skip
@click.option("--port", "ports", metavar="URL", multiple=True,
              help="Serial port of a board: /dev/ttyACM0, COM3, socket://, rfc2217://; may "
              "be given several times: the boards run at the same time.")  # fmt: skip
@click.option("--history", is_flag=True, help="List the profiles that were kept, of FOLDER or all.")
@click.option("--compare", type=click.IntRange(1), nargs=2, default=None, metavar="A B",
              help="Show what changed per node between two kept profiles.")  # fmt: skip
@click.option("--note", default="", help="A text to keep with the profile.")
@click.option("--no-save", is_flag=True, help="Do not keep the profile.")
@options.placing_many
@options.common
def command(
    folder: Path | None, runs: int, ports: tuple[str, ...], history: bool,
    compare: tuple[int, int] | None, note: str, no_save: bool, where: Any, timeout: float,
    link: Any, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Count what each node of the firmware in FOLDER costs: instructions in an emulator,
    cycles on a board. The input is the same random one every run; its output is verified.

    Profiles are kept in a database, to list and compare; docs/profiling.md says where.
    """
    from tinydeploy.errors import UsageError

    screen = options.Screen(as_json, verbose, color)
    if compare:
        return _compare(screen, *compare)
    if history:
        return _history(screen, folder)
    if folder is None:
        raise UsageError("there is nothing to profile", hint="name a deployment folder")
    if len(set(ports)) < len(ports):
        raise UsageError("a port is named twice", ", ".join(ports))
    from tinydeploy.pipeline import Place

    places = [Place(where, port, timeout, link) for port in ports or (None,)]
    return _profile(screen, folder, runs, places, note, not no_save, quiet)


def _profile(
    screen: options.Screen,
    folder: Path,
    runs: int,
    places: Sequence[Any],
    note: str,
    keep: bool,
    quiet: bool,
) -> int:
    """Profile at all places at once, show and keep what succeeded, then raise or tell the rest."""
    from tinydeploy import history, pipeline, profiling
    from tinydeploy.build.folder import load_firmware, read_compiler
    from tinydeploy.cli.outcome import choose_samples
    from tinydeploy.cli.profile_tables import profile_table
    from tinydeploy.report.assemble import assemble
    from tinydeploy.report.terminal import mismatch_text

    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        prepared, target, manifest = pipeline.reopen(folder, clock)
        firmware = load_firmware(folder, target)
        samples = choose_samples(prepared.graph, None, None, 1, 0)

    def measure(place: Any, tell: Callable[[Any], None]) -> Any:
        return profiling.measure(prepared, firmware, target, samples, runs, place, tell)

    with clock.stage("profile"):
        outcomes = _at_once(places, measure, runs, quiet)
    made = history.circumstances(
        folder, read_compiler(folder), f"{manifest.optimize} {manifest.optimisation}",
        _plan_text(prepared.plan), note,
    )  # fmt: skip
    documents: list[Any] = []
    failures: list[Exception] = []
    exact = True
    for place, outcome in zip(places, outcomes, strict=True):
        if isinstance(outcome, Exception):
            if len(places) == 1:
                raise outcome
            failures.append(outcome)
            documents.append({"port": place.port, "error": str(outcome)})
            continue
        measured, profile = outcome
        number = history.save(profile, made) if keep and measured.verdict.bit_exact else None
        document = assemble(
            prepared.graph, prepared.plan, prepared.profile, prepared.path.name, prepared.macs,
            clock.stages, target, firmware, samples, measured.verdict, measured.unit,
            measured.counts, measured.stack_bytes, prepared.front,
        )  # fmt: skip
        document = _with_spread(document, profile, number)
        documents.append(
            document if len(places) == 1 else {"port": place.port, "profile": document}
        )
        if not screen.as_json:
            console = screen.console()
            console.print(profile_table(profile))
            if number:
                console.print(f"kept as {number}; 'tinydeploy profile --history' lists all")
        if not measured.verdict.bit_exact:
            exact = False
            click.echo(f"error: {mismatch_text(document)}", err=True)
    if screen.as_json:
        screen.result(documents[0] if len(places) == 1 else documents, lambda console: None)
    for failure in failures:
        click.echo(f"error: {failure}", err=True)
    return next((getattr(f, "exit_code", 1) for f in failures), 0 if exact else 7)


def _plan_text(plan: Any) -> str:
    streamed = sum(segment.kind == "streamed" for segment in plan.segments)
    return (
        f"arena {plan.arena_bytes:,} bytes, {len(plan.segments)} segments, {streamed} streamed, "
        f"input {plan.input}, {plan.allocator}"
    )


def _with_spread(document: Any, profile: Any, number: int | None) -> Any:
    """Add to a document what only many runs show."""
    from msgspec.structs import replace

    nodes = [
        replace(
            shown,
            least=node.count.least,
            most=node.count.most,
            milliseconds=profile.milliseconds(node.count.median),
        )
        for shown, node in zip(document.profile_run.nodes, profile.nodes, strict=True)
    ]
    run = replace(
        document.profile_run, nodes=nodes, port=profile.port, runs=profile.runs, id=number,
        least=profile.total.least, most=profile.total.most,
        milliseconds=profile.milliseconds(profile.total.median),
    )  # fmt: skip
    return replace(document, profile_run=run)


def _at_once(
    places: Sequence[Any],
    measure: Callable[[Any, Callable[[Any], None]], Any],
    runs: int,
    quiet: bool,
) -> list[Any]:
    """Return what each place gave, or the exception that ended it, showing tables meanwhile."""
    from tinydeploy.errors import TinydeployError

    outcomes: list[Any] = [None] * len(places)
    latest: list[Any] = [None] * len(places)
    stopped = threading.Event()

    def work(k: int) -> None:
        def tell(profile: Any) -> None:
            if stopped.is_set():
                raise TinydeployError("stopped")
            latest[k] = profile

        try:
            outcomes[k] = measure(places[k], tell)
        except Exception as error:
            outcomes[k] = error

    # Daemons: an interrupt must not wait for a board that is silent.
    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(len(places))]
    for thread in threads:
        thread.start()
    try:
        if quiet or not sys.stderr.isatty():
            for thread in threads:
                thread.join()
        else:
            _watch(threads, latest, runs)
    finally:
        stopped.set()
    return outcomes


def _watch(threads: Sequence[threading.Thread], latest: list[Any], runs: int) -> None:
    """Show the tables on a terminal's stderr as they fill."""
    from rich.console import Console, Group
    from rich.live import Live

    from tinydeploy.cli.profile_tables import profile_table

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=5) as live:
        while any(thread.is_alive() for thread in threads):
            live.update(Group(*(profile_table(p, runs) for p in latest if p)))
            next(t for t in [*threads, threads[0]] if t.is_alive() or t is threads[0]).join(0.2)


def _history(screen: options.Screen, folder: Path | None) -> int:
    from tinydeploy import history
    from tinydeploy.cli.profile_tables import history_table

    runs = history.list_runs(folder)

    def show(console: Any) -> None:
        console.print(history_table(runs) if runs else "no profiles were kept yet")

    screen.result(runs, show)
    return 0


def _compare(screen: options.Screen, first: int, second: int) -> int:
    from tinydeploy import history
    from tinydeploy.cli.profile_tables import comparison_table, differing

    before, after = history.load(first), history.load(second)
    changes = history.compare(before.profile, after.profile)
    total = history.Change("total", "", before.profile.total.median, after.profile.total.median)
    facts = differing(before, after)

    def entry(change: history.Change) -> dict[str, Any]:
        return {
            "name": change.name, "op": change.op, "before": change.before, "after": change.after,
            "percent": change.percent,
        }  # fmt: skip

    def show(console: Any) -> None:
        for name, old, new in facts:
            console.print(f"{name}: {old or '-'} -> {new or '-'}", markup=False)
        console.print(comparison_table(before, after, changes, total))

    document = {
        "before": first, "after": second, "unit": after.profile.unit,
        "circumstances": [{"name": n, "before": o, "after": a} for n, o, a in facts],
        "nodes": [entry(change) for change in changes], "total": entry(total),
    }  # fmt: skip
    screen.result(document, show)
    return 0
