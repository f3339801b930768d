"""tinydeploy deploy: a model to firmware, run and proven."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options
from tinydeploy.cli.flash import choosing


@click.command("deploy")
@options.MODEL
@options.TARGET
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), default=None,
              help="Keep sources, firmware and report in this folder.")  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Write one HTML page: fit, memory map, cost per layer, proof.")  # fmt: skip
@click.option("--code-in-ram", is_flag=True,
              help="Run the model's code from the target's fast memory (TCM, SRAM).")  # fmt: skip
@click.option("--calibration", type=click.Path(path_type=Path, dir_okay=False), default=None,
              help="Samples to quantise a float model with; else those of --data.")  # fmt: skip
@click.option("--flash", "flashing", is_flag=True,
              help="Write the firmware to the board first; its UART is --port.")  # fmt: skip
@choosing
@options.sampling
@options.placing
@options.PROFILE
@options.planning
@options.OPTIMIZE
@options.OPTIMISATION
@options.DUMP
@options.common
def command(
    model: Path, target: str, out: Path | None, report: Path | None, code_in_ram: bool,
    calibration: Path | None, flashing: bool, runner: str | None, probe: str | None,
    inputs: Path | None, expect: Path | None,
    seed: int, samples: int | None, where: Any, port: str | None, timeout: float, link: Any,
    profile: str,
    allocator: str, schedule: Any, ram: int | None, input_from: str, mac_factor: float,
    optimize: str, optimisation: str | None,
    dump_after: str | None, as_json: bool,
    verbose: bool, quiet: bool, debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Take MODEL to firmware for a target, run it there and prove it bit-exact.

    A float MODEL is quantised to int8 first; 'tinydeploy quantize' does so with more say. Every
    output of the device must equal the integer reference. Exit codes: 2 usage, 3 model, 4 does
    not fit, 5 toolchain, 6 device, 7 mismatch.
    """
    from tinydeploy import pipeline, tuning
    from tinydeploy.build.size import rooms_of
    from tinydeploy.cli.outcome import choose_samples, finish, load_calibration, with_floats
    from tinydeploy.errors import UsageError
    from tinydeploy.report.memory_map import memory_map_svg
    from tinydeploy.run.flash.flash import choose_runner, plan_flash, run_flash
    from tinydeploy.targets import load_target

    board = load_target(target)
    if flashing and not port:
        raise UsageError(
            "--flash needs --port", "the firmware proves itself over the board's serial port",
            "'tinydeploy ports' lists the ports of this computer",
        )  # fmt: skip
    if flashing:
        choose_runner(board, runner, probe)  # what is missing is said before minutes are spent
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as temporary:
        folder = out or Path(temporary) / "out"
        with options.progress(quiet) as progress:
            clock = pipeline.Clock(progress)
            core = pipeline.core_of(board, optimize)
            prepared = pipeline.prepare(
                model,
                profile,
                allocator,
                clock,
                core,
                lambda graph, semantics: tuning.preferred(graph, semantics, board, optimize),
                options.wanted(schedule, ram, input_from, mac_factor, board),
                rooms_of(board),
                lambda graph: load_calibration(graph, calibration or inputs),
            )
            options.dump(prepared, dump_after)
            chosen = choose_samples(prepared.graph, inputs, expect, samples, seed)
            chosen = with_floats(chosen, prepared, inputs)
            generated = pipeline.generate_sources(prepared, board, clock)
            level = f"-O{optimisation}" if optimisation else pipeline.compiler_level(optimize)
            firmware = pipeline.build(prepared, generated, board, folder, level, clock, code_in_ram)
            if out:
                svg = memory_map_svg(prepared.graph, prepared.plan)
                (out / "memory.svg").write_text(svg, encoding="utf-8")
            if flashing:
                with clock.stage("flash"):
                    run_flash(plan_flash(firmware.elf, board, runner, probe, port))
            measured = pipeline.run(
                prepared, firmware, board, chosen, clock, pipeline.Place(where, port, timeout, link)
            )
        screen = options.Screen(as_json, verbose, color)
        document: Any = finish(
            screen, prepared, board, firmware, chosen, measured, clock, out, report
        )
    return 0 if document.verify.bit_exact else 7
