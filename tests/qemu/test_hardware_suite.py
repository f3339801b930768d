"""The suite for real boards passes against an emulator's UART behind a socket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bad_line import Faults, bad_line
from commands import tinydeploy
from networks import residual_network

from tinydeploy.build.folder import load_firmware
from tinydeploy.run.qemu import start_qemu
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu
ROOT = Path(__file__).parents[2]


def test_an_emulator_passes_as_a_board(tmp_path: Path) -> None:
    model, folder = tmp_path / "small.tflite", tmp_path / "out"
    model.write_bytes(residual_network(size=8))
    target = load_target("mps2-an386")
    tinydeploy("deploy", model, "--target", target.name, "--out", folder)
    transport, process = start_qemu(load_firmware(folder, target).elf, target, "uart")
    try:
        with bad_line(transport, Faults()) as port:
            command = [sys.executable, "-m", "pytest", "tests/hardware", "-p", "no:cacheprovider",
                       "--port", port, "--folder", str(folder), "--runs", "10"]  # fmt: skip
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=200, cwd=ROOT
            )
    finally:
        process.stop()
        transport.close()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "11 passed" in result.stdout
