"""Every emulated board: boot, greet, move data, run a model, count, fail in a way one can read."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from firmware_models import (
    ARENA_BYTES,
    CRASH,
    DIGEST,
    FIRMWARE_MODEL,
    INPUT,
    INVOKES,
    LOOPS,
    OUTPUT,
    STEPS,
)

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.errors import DeviceError, ToolchainError
from tinydeploy.run.device import Device, open_device
from tinydeploy.run.qemu import Link
from tinydeploy.targets import Target, list_targets, load_target

pytestmark = pytest.mark.qemu

Build = Callable[[Target], Firmware]
EMULATED = [target for target in list_targets() if target.qemu]


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_board(target: Target, firmware_of: Build) -> None:
    with open_device(firmware_of(target), target) as device:
        hello = device.hello()
        assert hello.board == target.name
        assert hello.digest == DIGEST
        assert (hello.arena_bytes, hello.step_count) == (ARENA_BYTES, STEPS)
        assert [(span.offset, span.bytes) for span in hello.inputs] == [INPUT]
        assert [(span.offset, span.bytes) for span in hello.outputs] == [OUTPUT]
        assert hello.stack_bytes == target.stack_bytes

        # A model must not count on zeros: the arena starts out as something else.
        assert device.read(0, ARENA_BYTES) == b"\xa5" * ARENA_BYTES
        noise = random.Random(target.name).randbytes(ARENA_BYTES)
        device.write(0, noise)
        assert device.read(0, ARENA_BYTES) == noise
        for offset, length in ((ARENA_BYTES, 1), (ARENA_BYTES - 2, 3), (2**32 - 1, 1)):
            with pytest.raises(DeviceError, match="outside of its memory"):
                device.write(offset, bytes(length))
            with pytest.raises(DeviceError, match="outside of its memory"):
                device.read(offset, length)

        device.write(0, bytes(256))
        device.write(*_input(noise))
        counts = device.invoke()
        assert device.read(*OUTPUT) == bytes((2 * byte + 1) & 255 for byte in noise[:64])
        assert len(counts) == STEPS
        assert device.unit == "instructions"
        assert device.bench(3).count == 3
        assert struct.unpack("<I", device.read(INVOKES, 4)) == (4,)
        # Step 2 keeps a block of 1000 bytes on the stack.
        assert 1_000 < device.stack_used() < 1_400


def _input(data: bytes) -> tuple[int, bytes]:
    return INPUT[0], data[: INPUT[1]]


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_counts_are_instructions(target: Target, firmware_of: Build) -> None:
    """A loop of 1,000,000 instructions by construction is counted as such.

    What surrounds the loop is the difference to a loop of no turns. One tick of a timer is up to
    62.5 instructions, and each of the two readings may be one off.
    """
    with open_device(firmware_of(target), target) as device:
        device.write(0, bytes(256))
        around = device.to_unit(device.step(1))
        device.write(LOOPS, struct.pack("<I", 500_000))
        counted = device.to_unit(device.step(1)) - around
        resolution = 2 if target.counter.driver == "mcycle" else 1e9 / target.counter.hz
        assert abs(counted - 1_000_000) <= 2 * resolution
        assert 0 <= around < 60 + 2 * resolution
        if target.counter.driver == "mcycle":
            assert device.step(1) == device.step(1)  # exact, so always the same


def test_systick_counts_beyond_its_24_bits(firmware_of: Build) -> None:
    target = load_target("netduinoplus2")  # 168 MHz: 24 bits last 100 million instructions
    with open_device(firmware_of(target), target) as device:
        device.write(0, bytes(256))
        device.write(LOOPS, struct.pack("<I", 130_000_000))
        ticks = device.step(1)
        assert ticks > 2 * 2**24
        assert abs(device.to_unit(ticks) - 260_000_000) < 100


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_the_boards_own_uart_carries_the_same_frames(target: Target, firmware_of: Build) -> None:
    with open_device(firmware_of(target), target, link="uart") as device:
        noise = random.Random(target.name).randbytes(700)
        device.write(0, noise)
        assert device.read(0, 700) == noise
        device.write(0, bytes(256))
        device.invoke()
        assert device.read(*OUTPUT) == b"\x01" * 64


@pytest.mark.parametrize("link", ["semihosting", "uart"])
@pytest.mark.parametrize(
    "name", ["microbit", "mps2-an386", "mps2-an505", "mps3-an547", "hifive1", "riscv-virt"]
)
def test_a_crash_names_the_function(name: str, link: Link, firmware_of: Build) -> None:
    target = load_target(name)
    with open_device(firmware_of(target), target, link=link) as device:
        device.write(0, bytes(256))
        device.write(CRASH, b"\x01")
        with pytest.raises(DeviceError, match=r"crashed in (crash_here|step)"):
            device.invoke()
        with pytest.raises(DeviceError, match="crashed"):  # and it goes on saying so
            device.read(0, 1)


@pytest.mark.parametrize("target", EMULATED, ids=lambda target: target.name)
def test_a_stack_that_overflows_is_an_error(target: Target, firmware_of: Build) -> None:
    with open_device(firmware_of(target), target) as device:
        device.write(0, bytes(256))
        device.write(CRASH, b"\x02")
        with pytest.raises(DeviceError, match="stack overflow"):
            device.step(3)


def test_vector_instructions_are_switched_on(tmp_path: Path) -> None:
    """The M55's MVE registers fault until the start-up code gives access to them."""
    code = FIRMWARE_MODEL.replace(
        "#include <string.h>", "#include <string.h>\n#include <arm_mve.h>"
    )
    code = code.replace(
        "        loop(load(bytes + 132));",
        "        int8x16_t lanes = vaddq_n_s8(vld1q_s8((int8_t *)bytes), 3);\n"
        "        vst1q_s8((int8_t *)bytes + 64, lanes);",
    )
    target = load_target("mps3-an547")
    built = build_firmware({"firmware_model.c": code.encode()}, target, ARENA_BYTES, tmp_path)
    with open_device(built, target) as device:
        device.write(0, bytes(range(64)))
        device.step(1)
        assert device.read(64, 16) == bytes(range(3, 19))


def test_a_device_with_another_model_is_refused(firmware_of: Build) -> None:
    target = load_target("mps2-an386")
    built = firmware_of(target)
    other = Firmware(built.elf, built.target, bytes(16), built.sizes)
    with open_device(other, target) as device, pytest.raises(DeviceError, match="another model"):
        device.hello()


def test_an_emulator_that_dies_says_its_last_words(tmp_path: Path, firmware_of: Build) -> None:
    target = load_target("mps2-an386")
    text = (Path(__file__).parents[2] / "targets" / "mps2-an386.toml").read_text()
    path = tmp_path / "odd.toml"
    path.write_text(text.replace('machine = "mps2-an386"', 'machine = "mps2-an999"'))
    died = pytest.raises(DeviceError, match=r"qemu-system-arm died\nexit code 1: .*machine")
    with open_device(firmware_of(target), load_target(path)) as device, died:
        device.hello()
    with open_device(firmware_of(target), target) as device:
        device.hello()
        _kill(device)
        with pytest.raises(DeviceError, match="died\nkilled by signal 9"):
            device.read(0, 1)


def _kill(device: Device) -> None:
    assert device._process is not None
    device._process._process.kill()


def test_a_missing_emulator_names_its_package(
    firmware_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target("riscv-virt")
    built = firmware_of(target)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolchainError, match="apt install qemu-system-misc"):
        open_device(built, target)


def test_the_emulator_ends_with_the_device_and_with_us(firmware_of: Build) -> None:
    target = load_target("mps2-an386")
    built = firmware_of(target)
    with pytest.raises(RuntimeError), open_device(built, target) as device:
        device.hello()
        assert device._process is not None
        number = device._process._process.pid
        raise RuntimeError
    assert not _alive(number)

    # A process that is killed cannot tidy up: the kernel does.
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tinydeploy.run.qemu import start_qemu; from tinydeploy.targets import load_target\n"
        "keep = start_qemu(Path(sys.argv[1]), load_target('mps2-an386'), 'uart')\n"
        "print(keep[1]._process.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(built.elf)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    assert _alive(number)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _alive(number) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(number)


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_the_link_is_fast_enough(firmware_of: Build) -> None:
    """61,440 input bytes for each of 8 samples must not be what one waits for."""
    target = load_target("mps2-an386")
    with open_device(firmware_of(target), target) as device:
        device.hello()
        data = bytes(range(256)) * 8
        started = time.monotonic()
        for _ in range(60):
            device.write(0, data)
        rate = 60 * len(data) / (time.monotonic() - started)
    assert rate > 100_000


@pytest.mark.parametrize(
    "options",
    [
        ("-cpu", "rv32,pmp=false"),
        # The first instruction is fetched from a copy elsewhere, as where flash is mapped twice.
        ("-device", "loader,file=IMAGE,addr=0x84000000,force-raw=on",
         "-device", "loader,addr=0x84000000,cpu-num=0"),
    ],
    ids=["without-pmp", "from-a-copy"],
)  # fmt: skip
def test_riscv_start_copes_with_less(firmware_of: Build, options: tuple[str, ...]) -> None:
    target = load_target("riscv-virt")
    built = firmware_of(target)
    image = str(built.elf.with_name("firmware.bin"))
    options = tuple(option.replace("IMAGE", image) for option in options)
    with open_device(built, target, emulator_options=options) as device:
        device.write(0, bytes(256))
        device.invoke()
        assert device.read(*OUTPUT) == bytes([1] * OUTPUT[1])
        assert 1_000 < device.stack_used() < 1_400  # where the linker put the stack
