"""tinydeploy plan: where every byte of the activations lies, printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("plan")
@options.MODEL
@click.option("-t", "--target", default=None, metavar="NAME", help="Also say whether it fits.")
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Draw the memory map: time across, bytes up.")  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Write one HTML page: fit, memory map, plan.")  # fmt: skip
@click.option("--explain", is_flag=True,
              help="Say what makes the peak, and which change of the network would lower it.",
              )  # fmt: skip
@click.option("--compare", is_flag=True,
              help="Show the plan beside published schedules of the network.")  # fmt: skip
@click.option("--tflm-metadata", "tflm", default=None, metavar="OUT.tflite",
              type=click.Path(path_type=Path, dir_okay=False),
              help="Write a copy of MODEL that tells TensorFlow Lite Micro where tensors lie.",
              )  # fmt: skip
@options.PROFILE
@options.planning
@options.OPTIMIZE
@options.DUMP
@options.common
def command(
    model: Path, target: str | None, svg: Path | None, report: Path | None,
    explain: bool, compare: bool, tflm: Path | None, profile: str,
    allocator: str, schedule: Any, ram: int | None, input_from: str, mac_factor: float,
    optimize: str,
    dump_after: str | None, as_json: bool, verbose: bool, quiet: bool, debug: bool,
    color: bool | None,
) -> int:  # fmt: skip
    """Plan the memory of MODEL and print it; --svg draws it."""
    import msgspec

    from tinydeploy import pipeline
    from tinydeploy.build.size import rooms_of
    from tinydeploy.cli.comparing import compared
    from tinydeploy.cli.explaining import explained
    from tinydeploy.report.assemble import assemble
    from tinydeploy.report.explanation import explanation_figures, explanation_lines
    from tinydeploy.report.memory_map import memory_map_svg
    from tinydeploy.report.plan_table import show_front, show_plan
    from tinydeploy.report.published import show_compare
    from tinydeploy.targets import load_target

    board = load_target(target) if target else None
    with options.progress(quiet) as progress:
        clock = pipeline.Clock(progress)
        wanted = options.wanted(schedule, ram, input_from, mac_factor, board)
        core = pipeline.core_of(board, optimize) if board else None
        rooms = rooms_of(board) if board else ()
        prepared = pipeline.prepare(
            model, profile, allocator, clock, core, wanted=wanted, rooms=rooms
        )
        why = explained(prepared, allocator, clock) if explain else None
        beside = compared(prepared, clock) if compare else None
    options.dump(prepared, dump_after)
    if svg:
        _write(svg, memory_map_svg(prepared.graph, prepared.plan).encode())
    offline = _write_tflm(model, tflm) if tflm else None
    document = assemble(
        prepared.graph,
        prepared.plan,
        prepared.profile,
        model.name,
        prepared.macs,
        clock.stages,
        board,
        front=prepared.front,
    )
    lines = explanation_lines(prepared.graph, why) if why else []
    if why:
        document = msgspec.structs.replace(
            document, explain=explanation_figures(prepared.graph, why)
        )
    if beside:
        document = msgspec.structs.replace(document, compare=beside)
    if report:
        from tinydeploy.cli.pages import write_page

        write_page(report, document, prepared, board)

    def show(console: Any) -> None:
        show_plan(console, prepared.graph, prepared.plan, board, verbose)
        if len(prepared.front) > 1:
            show_front(console, prepared.front, prepared.plan, prepared.profile)
        if beside:
            show_compare(console, beside)
        for line in lines:
            console.print(line, markup=False, soft_wrap=True)
        if svg:
            console.print(f"drawn in {svg}")
        if offline:
            console.print(
                f"tflm   {offline.arena_bytes:,} bytes for the tensors in TensorFlow Lite Micro's "
                f"arena, {offline.greedy_bytes:,} as it plans itself; wrote {tflm}",
                markup=False,
            )

    options.Screen(as_json, verbose, color).result(document, show)
    return 0


def _write(path: Path, content: bytes) -> None:
    from tinydeploy.errors import UsageError

    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {path}", error.strerror or "") from error


def _write_tflm(model: Path, out: Path) -> Any:
    """Write the model's file with a plan for TFLM; return the plan."""
    from tinydeploy.plan.tflm import plan_for_tflm, with_metadata

    data = model.read_bytes()
    plan = plan_for_tflm(data)
    _write(out, with_metadata(data, plan))
    return plan
