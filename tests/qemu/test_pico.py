"""The Pico in an emulator of its chip: second boot stage, clocks, UART, SysTick, a model."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import tinydeploy
from firmware_models import LOOPS, OUTPUT
from networks import residual_network

from tinydeploy.build.firmware import Firmware
from tinydeploy.errors import DeviceError
from tinydeploy.run.device import open_device
from tinydeploy.targets import Target, load_target

TOOLS = Path(__file__).resolve().parents[1] / "tools"
LIBRARY = TOOLS / "node_modules" / "rp2040js"
NODE = shutil.which("node")
TARGET = load_target("raspberry-pi-pico")
Build = Callable[[Target], Firmware]

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        NODE is None or not LIBRARY.is_dir(),
        reason="node or rp2040js is missing: run `make setup-test`",
    ),
]


@contextmanager
def board(image: Path, baud: int = TARGET.uart.baud) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the URL of a board that reads `image` when it is connected to, and its process."""
    command = [str(NODE), str(TOOLS / "rp2040.mjs"), str(LIBRARY), str(image), str(baud)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOOLS
    )
    try:
        assert process.stdout
        yield f"socket://127.0.0.1:{int(process.stdout.readline())}", process
    finally:
        process.kill()
        process.communicate()


def test_a_model_is_bit_exact(tmp_path: Path) -> None:
    model, out = tmp_path / "small.tflite", tmp_path / "out"
    model.write_bytes(residual_network())
    with board(out / "firmware.bin") as (url, _):
        done = tinydeploy(
            "deploy", model, "--target", TARGET.name, "--out", out, "--samples", 2,
            "--where", "board", "--port", url, "--json",
        )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["verify"]["bit_exact"] and document["verify"]["samples"] == 2
    assert document["profile_run"]["total"] > 10_000


def test_clocks_uart_and_counter(firmware_of: Build) -> None:
    """The emulator checks the line rate of every byte; the counter must keep the core's pace."""
    built = firmware_of(TARGET)
    with (
        board(built.elf.with_suffix(".bin")) as (url, _),
        open_device(built, TARGET, where="board", port=url) as device,
    ):
        noise = bytes(range(256)) * 2
        device.write(0, noise)
        assert device.read(0, len(noise)) == noise
        device.write(0, bytes(256))
        device.invoke()
        assert device.read(*OUTPUT) == bytes([1] * 64)
        around = device.step(1)
        device.write(LOOPS, struct.pack("<I", 200_000))
        # "Cortex-M0+ Technical Reference Manual", 3.3: SUBS takes 1 cycle, a branch taken 2.
        assert abs(device.step(1) - around - 600_000) < 20


@pytest.mark.parametrize(("at", "code"), [(10, 3), (252, 3)])
def test_a_changed_boot_stage_does_not_start(
    firmware_of: Build, tmp_path: Path, at: int, code: int
) -> None:
    built = firmware_of(TARGET)
    image = bytearray(built.elf.with_suffix(".bin").read_bytes())
    image[at] ^= 1
    (tmp_path / "firmware.bin").write_bytes(image)
    with board(tmp_path / "firmware.bin") as (url, process):
        _connect(built, url)
        assert process.wait(20) == code


def test_another_line_rate_is_noticed(firmware_of: Build) -> None:
    built = firmware_of(TARGET)
    with board(built.elf.with_suffix(".bin"), baud=57_600) as (url, process):
        _connect(built, url)
        assert process.wait(20) == 4
        assert process.stderr and "133000000 and 133000000 Hz" in process.stderr.read()


def _connect(built: Firmware, url: str) -> None:
    with (
        pytest.raises(DeviceError),
        open_device(built, TARGET, where="board", port=url, timeout=2) as device,
    ):
        device.hello()
