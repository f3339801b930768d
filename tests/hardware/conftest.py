"""Give the hardware suite a board: pytest tests/hardware --port URL --target NAME."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hardware_board import Board

from tinydeploy import pipeline
from tinydeploy.build.folder import load_firmware
from tinydeploy.run.device import Device
from tinydeploy.targets import Target, load_target

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "digits_int8.tflite"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware")
    group.addoption("--port", help="the board's port: /dev/ttyACM0, COM3, socket://, rfc2217://")
    group.addoption("--target", help="the board's name; without --folder, the example is built")
    group.addoption(
        "--folder", type=Path, help="the deployment folder that the board was flashed from"
    )
    group.addoption("--flash", action="store_true", help="flash the board first")
    group.addoption("--emulator", action="store_true", help="an emulator is behind the port")
    group.addoption("--runs", type=int, default=100, help="inferences of the long run")


@pytest.fixture(scope="session")
def board(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Board:
    config = request.config
    port = config.getoption("--port", default=None)
    if port is None:
        pytest.skip("no board: give --port and --target")
    folder = config.getoption("--folder")
    if folder is None:
        folder = tmp_path_factory.mktemp("board") / "out"
        build_example(load_target(config.getoption("--target")), folder)
    prepared, target, _ = pipeline.reopen(folder, pipeline.Clock())
    if config.getoption("--flash"):
        from tinydeploy.cli.main import cli

        assert cli.main(["flash", str(folder)], standalone_mode=False) == 0
    where = "qemu" if config.getoption("--emulator") else None
    place = pipeline.Place(where, port, timeout=20)
    runs = config.getoption("--runs")
    return Board(folder, prepared, load_firmware(folder, target), target, place, runs)


def build_example(target: Target, folder: Path) -> None:
    """Build the example; sources are reproducible, and so is the digest that must answer."""
    clock = pipeline.Clock()
    core = pipeline.core_of(target, "balanced")
    prepared = pipeline.prepare(EXAMPLE, "litert", "greedy", clock, core)
    generated = pipeline.generate_sources(prepared, target, clock)
    pipeline.build(prepared, generated, target, folder, "-O2", clock)


@pytest.fixture
def device(board: Board) -> Iterator[Device]:
    with pipeline.device(board.firmware, board.target, board.place) as opened:
        yield opened
