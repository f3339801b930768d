"""Who flashes a board, with which command line, and what its failures come to."""

import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from elf_file import write_elf

from tinydeploy.cli.flash import RUNNERS as NAMES
from tinydeploy.errors import DeviceError, ToolchainError, UsageError
from tinydeploy.run.flash.flash import RUNNERS, plan_flash, run_flash
from tinydeploy.targets import Flash, Target, list_targets, load_target

F446, PICO, C3 = "nucleo-f446re", "raspberry-pi-pico", "esp32-c3-devkitm"
BOARDS = [t for t in list_targets() if t.flash.order]
HOSTILE = "a b;$(touch x)`touch x`'\"{[exit]}&|>x"


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    path = folder / "firmware.elf"
    write_elf(path, 0x3C000000, b"\x1d\x04\xdb\xae")
    (folder / "firmware.bin").write_bytes(b"\x1d\x04\xdb\xae")
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, and no programs beside this Python."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr("tinydeploy.run.flash.base._beside", lambda name: None)
    return place


def fake(path: Path, name: str, says: str = "", code: int = 0, body: str = "") -> None:
    """Put a program on the PATH that notes its arguments and prints a text."""
    program = path / name
    program.write_text(
        f"#!{sys.executable}\nimport sys, os, time\n"
        f"open({str(path / (name + '.log'))!r}, 'a').write("
        f"repr((os.getcwd(), sys.argv[1:])) + '\\n')\n"
        f"{body}\nprint({says!r})\nsys.exit({code})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def calls(path: Path, name: str) -> list[tuple[str, list[str]]]:
    return [eval(line) for line in (path / f"{name}.log").read_text().splitlines()]


def test_names_are_those_of_the_runners() -> None:
    assert sorted(NAMES) == sorted(RUNNERS)


@pytest.mark.parametrize("target", BOARDS, ids=lambda t: t.name)
def test_every_runner_a_board_lists_can_flash_it(target: Target) -> None:
    assert not [name for name in target.flash.order if RUNNERS[name].needs(target)]


def test_the_first_of_the_order_that_is_installed(path: Path, elf: Path) -> None:
    target = load_target(F446)
    assert target.flash.order == ("probe-rs", "pyocd", "openocd")
    for name in reversed(target.flash.order):
        fake(path, name)
        assert plan_flash(elf, target).runner.name == name
    assert plan_flash(elf, target, "openocd").runner.name == "openocd"


def test_nothing_installed_names_what_to_install(path: Path, elf: Path) -> None:
    with pytest.raises(ToolchainError) as error:
        plan_flash(elf, load_target(F446))
    assert "pip install 'tinydeploy[pyocd]'" in error.value.hint
    assert "openocd" in error.value.hint and error.value.exit_code == 5
    with pytest.raises(ToolchainError, match="install it: apt install openocd"):
        plan_flash(elf, load_target(F446), "openocd")


def test_what_does_not_suit_is_a_usage_error(path: Path, elf: Path) -> None:
    with pytest.raises(UsageError, match="no chip of Espressif's"):
        plan_flash(elf, load_target(F446), "esptool")
    with pytest.raises(UsageError, match="needs --probe"):
        plan_flash(elf, load_target(F446), "gdb")
    with pytest.raises(UsageError, match="not the HOST:PORT"):
        plan_flash(elf, load_target(F446), "gdb", "localhost:3333 -ex quit")
    for probe in ("-c exit", "a b", "[exit]", "$x", "", "x" * 100, "a\nb"):
        for name in ("openocd", "pyocd", "probe-rs"):
            with pytest.raises(UsageError, match="--probe"):
                plan_flash(elf, load_target(F446), name, probe)
    with pytest.raises(UsageError, match="nothing to flash host"):
        plan_flash(elf, load_target("host"))
    with pytest.raises(UsageError, match="no built firmware"):
        fake(path, "openocd")
        plan_flash(elf.parent / "no.elf", load_target(F446))


def test_a_server_of_gdb_serves_any_board(path: Path, elf: Path) -> None:
    for name in ("probe-rs", "pyocd", "openocd", "esptool", "gdb-multiarch"):
        fake(path, name)
    for board in (F446, "mps2-an386", C3):
        plan = plan_flash(elf, load_target(board), None, "localhost:3333")
        assert plan.runner.name == "gdb"
    plan = plan_flash(elf, load_target("mps2-an386"), None, "[::1]:3333")
    assert "target extended-remote [::1]:3333" in plan.commands[0]


EXPECTED = {
    ("openocd", F446): "-c 'adapter serial 0A' -f board/st_nucleo_f4.cfg "
    "-c 'program firmware.elf verify reset exit'",
    ("openocd", PICO): "-c 'adapter serial 0A' -f interface/cmsis-dap.cfg -f target/rp2040.cfg "
    "-c 'program firmware.elf verify reset exit'",
    ("pyocd", F446): "flash --no-config --no-wait --format elf --target stm32f446retx --uid 0A "
    "firmware.elf",
    ("picotool", PICO): "load --verify --execute firmware.elf -t elf --ser 0A",
    ("esptool", C3): "--chip esp32c3 --port /dev/ttyUSB0 write_flash 0x0 firmware.bin",
}


@pytest.mark.parametrize(("name", "board"), EXPECTED)
def test_command_lines(name: str, board: str, path: Path, elf: Path) -> None:
    """Run without a shell in the firmware's folder: hostile names reach nobody's language."""
    fake(path, name)
    probe = "/dev/ttyUSB0" if name == "esptool" else "0A"
    plan = plan_flash(elf, load_target(board), name, probe)
    assert run_flash(plan, 60).runner == name
    assert calls(path, name) == [(str(elf.parent), shlex.split(EXPECTED[name, board]))]
    assert shlex.split(plan.lines()[0]) == ["cd", str(elf.parent)]
    assert not list(path.parent.rglob("x"))


def test_esptool_takes_the_port_that_the_firmware_answers_on(path: Path, elf: Path) -> None:
    fake(path, "esptool")
    run_flash(plan_flash(elf, load_target(C3), port="/dev/ttyUSB7"), 60)
    run_flash(plan_flash(elf, load_target(C3), None, "/dev/ttyUSB8", "/dev/ttyUSB7"), 60)
    run_flash(plan_flash(elf, load_target(C3)), 60)
    lines = [" ".join(arguments) for _, arguments in calls(path, "esptool")]
    assert "--port /dev/ttyUSB7 " in lines[0] and "--port /dev/ttyUSB8 " in lines[1]
    assert "--port" not in lines[2]
    fake(path, "openocd")
    plan = plan_flash(elf, load_target(F446), port="/dev/ttyACM0")
    assert not any("tty" in part for part in plan.commands[0])


def test_probe_rs_writes_and_then_starts(path: Path, elf: Path) -> None:
    fake(path, "probe-rs")
    plan = plan_flash(elf, load_target(F446), None, "0483:374b:0A")
    run_flash(plan, 60)
    first, second = (arguments for _, arguments in calls(path, "probe-rs"))
    assert first[0] == "download" and "--verify" in first and first[-1] == "firmware.elf"
    assert second[0] == "reset"
    for arguments in (first, second):
        assert "--chip STM32F446RETx --probe 0483:374b:0A" in " ".join(arguments)


def test_uf2_runs_as_a_program_of_its_own(path: Path, elf: Path) -> None:
    plan = plan_flash(elf, load_target(PICO))
    assert plan.runner.name == "uf2"
    with pytest.raises(DeviceError, match="no UF2 drive") as error:
        run_flash(plan_flash(elf, load_target(PICO), "uf2", str(elf.parent)), 60)
    assert "BOOTSEL" in error.value.hint


# What the programs print: pyocd 0.46, openocd 0.12 and esptool 5.6 without a board; the others
# from their public issue trackers and sources.
WORDS = [
    ("openocd", "Error: open failed\nin procedure 'program'", "plugged in"),
    ("openocd", "Error: unable to find a matching CMSIS-DAP device", "plugged in"),
    ("openocd", "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS\nError: open failed", "udev"),
    ("openocd", "Error: stm32x device protected\n** Programming Failed **", "erases all"),
    ("openocd", "Warn : UNEXPECTED idcode: 0x1ba01477\nError: expected 1 of 1: 0x2ba01477",
     "another chip"),
    ("openocd", "Error: target voltage may be too low for reliable debugging", "no power"),
    ("openocd", "** Verify Failed **\nshutdown command invoked", "differs"),
    ("openocd", "Error: libusb_claim_interface() failed with LIBUSB_ERROR_BUSY", "another program"),
    ("openocd", "embedded:startup.tcl:28: Error: Can't find target/rp2350.cfg", "version"),
    ("openocd", "Error: [nrf52.cpu] Examination failed", "does not answer"),
    ("pyocd", "No connected debug probes", "plugged in"),
    ("pyocd", "0002535 E No target device available [load_cmd]", "plugged in"),
    ("pyocd", "C Target type stm32f446retx not recognized. Use 'pyocd list --targets'",
     "pyocd pack install"),
    ("pyocd", "usb.core.USBError: [Errno 13] Access denied (insufficient permissions)", "udev"),
    ("pyocd", "W NRF52840 APPROTECT enabled: will try to unlock via mass erase", "erases all"),
    ("probe-rs", "Error: No connected probes were found.", "plugged in"),
    ("probe-rs", "Error: Connecting to the chip was unsuccessful.\nCaused by:\n 1: An operation "
     "could not be performed because it lacked the permission to do so: erase_all", "erases all"),
    ("probe-rs", "Error: 2 probes were found:\n 1. STLink V2-1", "name one with --probe"),
    ("probe-rs", "WARN probe_rs::config::sequences::nrf52: Core is locked.", "erases all"),
    ("probe-rs", "Caused by: USB error: Permission denied (os error 13)", "udev"),
    ("esptool", "A fatal error occurred: Could not open /dev/ttyNOPE, the port is busy or doesn't "
     "exist.\n([Errno 2] could not open port: [Errno 2] No such file or directory: '/dev/ttyNOPE')",
     "no such port"),
    ("esptool", "A fatal error occurred: Could not open /dev/ttyUSB0, the port is busy or doesn't "
     "exist.\n([Errno 13] could not open port: [Errno 13] Permission denied: '/dev/ttyUSB0')",
     "dialout"),
    ("esptool", "A fatal error occurred: Could not open /dev/ttyUSB0, the port is busy or doesn't "
     "exist.\n([Errno 11] Could not exclusively lock port /dev/ttyUSB0)", "close serial monitors"),
    ("esptool", "A fatal error occurred: This chip is ESP32-S3, not ESP32-C3. Wrong chip "
     "argument?", "another chip"),
    ("esptool", "A fatal error occurred: Failed to connect to ESP32-C3: No serial data received.",
     "hold BOOT"),
    ("esptool", "A fatal error occurred: MD5 of file does not match data in flash!", "differs"),
    ("picotool", "No accessible RP-series devices in BOOTSEL mode were found.", "BOOTSEL button"),
    ("picotool", "No accessible RP2040 devices in BOOTSEL mode were found.\n\nbut:\n\nRP2040 "
     "device at bus 1, address 2 appears to be in BOOTSEL mode, but picotool was unable to "
     "connect. Maybe try 'sudo' or check your permissions.", "udev"),
    ("gdb", "localhost:3333: Connection refused.\nThe program is not being run.", "no gdb server"),
    ("gdb", "localhost:3333: Connection timed out.", "no gdb server"),
    ("gdb", "Section .text, range 0x40 -- 0x80: MIS-MATCHED!", "differs"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "hint"), WORDS, ids=lambda v: str(v)[:30])
def test_what_failed_and_what_to_try(
    name: str, words: str, hint: str, path: Path, elf: Path
) -> None:
    program = "gdb-multiarch" if name == "gdb" else name
    fake(path, program, f"Info : hello\n{words}\nInfo : bye", 1)
    board = {"esptool": C3, "picotool": PICO}.get(name, F446)
    plan = plan_flash(elf, load_target(board), name, "localhost:3333" if name == "gdb" else None)
    with pytest.raises(DeviceError) as error:
        run_flash(plan, 60)
    assert error.value.exit_code == 6 and name in error.value.what
    assert hint in error.value.hint
    shown = error.value.why.replace("\n", " ")
    assert any(line.strip() in shown for line in words.splitlines() if line.strip())
    assert "hello" not in shown and "bye" not in shown


@pytest.mark.parametrize("says", ["", "Section .text, range 0x0 -- 0x8: MIS-MATCHED!"])
def test_gdb_must_show_that_it_loaded(says: str, path: Path, elf: Path) -> None:
    """It ends with exit code 0 even when its commands failed."""
    fake(path, "gdb-multiarch", says)
    with pytest.raises(DeviceError, match="gdb could not flash"):
        run_flash(plan_flash(elf, load_target(F446), "gdb", "localhost:3333"), 60)


def test_unknown_trouble_shows_the_last_words(path: Path, elf: Path) -> None:
    fake(path, "openocd", "\n".join(f"line {n}" for n in range(10)) + "\x1b[31m", 3)
    with pytest.raises(DeviceError, match="exit code 3") as error:
        run_flash(plan_flash(elf, load_target(F446)), 60)
    assert "line 9" in error.value.why and "line 5" not in error.value.why
    assert "\x1b" not in error.value.why


def test_nobody_outlives_the_time_limit(path: Path, elf: Path) -> None:
    """Neither the program nor a child that keeps its output open."""
    child = f"[{sys.executable!r}, '-c', 'import time; time.sleep(600)']"
    body = (
        f"import subprocess\np = subprocess.Popen({child})\n"
        f"open({str(path / 'child')!r}, 'w').write(str(p.pid))\n"
        "print('Waiting for a debug probe', flush=True)\ntime.sleep(600)"
    )
    fake(path, "openocd", body=body)
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"openocd did not finish[\s\S]*Waiting for a debug"):
        run_flash(plan_flash(elf, load_target(F446)), 3)
    assert time.monotonic() - started < 30
    pid = int((path / "child").read_text())
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_program_that_does_not_start(path: Path, elf: Path) -> None:
    (path / "openocd").write_bytes(b"\x7fELFnonsense")
    (path / "openocd").chmod(0o755)
    with pytest.raises(ToolchainError, match="openocd does not start"):
        run_flash(plan_flash(elf, load_target(F446)), 60)


def test_board_files_cannot_smuggle_options(tmp_path: Path) -> None:
    text = Path(__file__).parents[2].joinpath("targets", f"{F446}.toml").read_text()
    for bad in ("-c exit", "../../x.cfg", "a b", "x;y", "$(x)"):
        path = tmp_path / "x.toml"
        path.write_text(text.replace("board/st_nucleo_f4.cfg", bad))
        with pytest.raises(UsageError, match=r"flash\.openocd"):
            load_target(path)
    assert Flash().order == ()


def test_dry_run_prints_what_a_shell_would_take(path: Path, elf: Path) -> None:
    fake(path, "openocd")
    lines = plan_flash(elf, load_target(F446)).lines()
    result = subprocess.run(
        ["/bin/sh", "-c", " && ".join(lines)], capture_output=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    (folder, arguments), = calls(path, "openocd")  # fmt: skip
    assert folder == str(elf.parent) and arguments[-1].startswith("program firmware.elf")
