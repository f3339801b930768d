"""Flash an empty machine through its gdb server, as through a debug probe, and prove it there."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import tinydeploy
from firmware_models import ARENA_BYTES, SOURCES
from networks import residual_network

from tinydeploy.build.firmware import build_firmware
from tinydeploy.errors import DeviceError
from tinydeploy.run.flash.flash import plan_flash, run_flash
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu

TARGETS = ["mps2-an386", "riscv-virt", pytest.param("mps3-an547", marks=pytest.mark.slow)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def empty_machine(name: str) -> Iterator[tuple[str, str]]:
    """Start a machine without firmware, halted; yield its gdb server and its UART's port."""
    qemu = load_target(name).qemu
    assert qemu
    gdb, uart = free_ports(2)
    command = [
        qemu.binary, "-M", qemu.machine, *qemu.args, "-icount", "shift=0", "-S",
        "-gdb", f"tcp:127.0.0.1:{gdb}", "-nographic", "-nodefaults", "-monitor", "none",
        "-nic", "none", "-serial", f"tcp:127.0.0.1:{uart},server=on,wait=off",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{gdb}", f"socket://127.0.0.1:{uart}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", TARGETS)
def test_deploy_flashes_and_proves(name: str, tmp_path: Path) -> None:
    """gdb waits for the server, so the machine need not be up before the command runs."""
    model = tmp_path / "small.tflite"
    model.write_bytes(residual_network())
    # Names that a shell, Tcl or gdb would make something of.
    out = tmp_path / "it's $(touch x) [exit]; {a"
    with empty_machine(name) as (server, port):
        text = tinydeploy(
            "deploy", model, "--target", name, "--out", out, "--samples", 2, "--json",
            "--flash", "--probe", server, "--port", port,
        ).stdout  # fmt: skip
        document = json.loads(text)
        assert document["verify"]["bit_exact"] and document["verify"]["samples"] == 2
        assert document["profile_run"]["total"] > 0
        assert "flash" in [stage["name"] for stage in document["stages"]]
        # The same board again: what runs is loaded over, then it proves itself once more.
        flashed = json.loads(tinydeploy("flash", out, "--probe", server, "--json").stdout)
        assert flashed["runner"] == "gdb" and flashed["seconds"] > 0
        again = json.loads(tinydeploy("verify", out, "--port", port, "--json").stdout)
        assert again["verify"]["bit_exact"]
    assert not list(tmp_path.rglob("x"))


def test_other_memory_is_told(tmp_path: Path) -> None:
    """A machine that has no memory where the firmware belongs cannot be flashed with it."""
    target = load_target("netduinoplus2")
    firmware = build_firmware(SOURCES, target, ARENA_BYTES, tmp_path)
    with empty_machine("lm3s6965evb") as (server, _):
        plan = plan_flash(firmware.elf, target, "gdb", server)
        with pytest.raises(DeviceError, match="gdb could not flash the board"):
            run_flash(plan, 60)
