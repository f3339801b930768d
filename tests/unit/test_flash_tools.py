"""The names in board files and our command lines, as the real programs read them.

No probe is needed, and none that happens to be there is used: its serial number is not ours.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from elf_file import write_elf

from tinydeploy.errors import DeviceError
from tinydeploy.run.flash.flash import RUNNERS, plan_flash, run_flash
from tinydeploy.run.flash.openocd import configurations
from tinydeploy.targets import Target, list_targets, load_target

NOBODY = "TINYDEPLOY-NO-SUCH-PROBE"
# Newer than OpenOCD 0.12: in 0.13 and in Raspberry Pi's own.
LATER_OPENOCD = {"target/rp2350.cfg"}
# Opens its adapter while the configuration is read.
OPENS = {"board/sifive-hifive1-revb.cfg": "No J-Link device found"}


def with_flash(field: str) -> list[object]:
    return [pytest.param(t, id=t.name) for t in list_targets() if getattr(t.flash, field)]


def program(name: str) -> str:
    path = RUNNERS[name].tool(load_target("nucleo-f446re")).path
    assert path, f"{name} belongs to the tools that tests need"
    return str(path)


def run(*command: str, code: int = 0) -> str:
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == code, result.stdout
    return result.stdout


@pytest.mark.parametrize("target", with_flash("openocd"))
def test_openocd_reads_the_configuration(target: Target) -> None:
    """All of it is read before the adapter is opened, which 'shutdown' comes before."""
    files = configurations(target)
    arguments = [part for name in files for part in ("-f", name)]
    later = not LATER_OPENOCD.isdisjoint(files)
    opens = OPENS.get(files[-1], "")
    said = run(program("openocd"), *arguments, "-c", "shutdown", code=1 if later or opens else 0)
    assert opens in said
    if later:
        assert f"Can't find {files[-1]}" in said
        assert "update it" in RUNNERS["openocd"].explain(said)


def test_pyocd_knows_the_chips() -> None:
    rows = run(program("pyocd"), "list", "--targets").splitlines()
    known = {row.split()[0] for row in rows if row.split()}
    assert "nrf52840" in known
    for flash in (t.flash for t in list_targets() if t.flash.pyocd):
        # Others are in packs, which 'pyocd pack install NAME' fetches: probe-rs takes its chips
        # from the same packs, so a part has one name in both.
        assert flash.pyocd in known or flash.pyocd == flash.probe_rs.lower()


def test_esptool_knows_the_chips() -> None:
    said = run(program("esptool"), "--help")
    for target in list_targets():
        assert target.flash.esptool in said


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    write_elf(tmp_path / "firmware.elf", 0x08000000, bytes(64))
    (tmp_path / "firmware.bin").write_bytes(bytes(64))
    return tmp_path / "firmware.elf"


@pytest.mark.parametrize(
    ("runner", "board", "probe", "hint"),
    [
        ("openocd", "nucleo-f446re", NOBODY, "plugged in"),
        ("openocd", "raspberry-pi-pico", NOBODY, "plugged in"),
        ("pyocd", "nrf52840-dk", NOBODY, "plugged in"),
        ("esptool", "esp32-c3-devkitm", "/dev/ttyTINYDEPLOY", "no such port"),
    ],
)
def test_command_lines_are_understood(
    runner: str, board: str, probe: str, hint: str, elf: Path
) -> None:
    """They fail, for want of a probe and for nothing else."""
    plan = plan_flash(elf, load_target(board), runner, probe)
    with pytest.raises(DeviceError) as error:
        run_flash(plan, 60)
    assert hint in error.value.hint, str(error.value)


def test_uf2_needs_nothing_installed() -> None:
    assert RUNNERS["uf2"].tool(load_target("raspberry-pi-pico")).path == Path(sys.executable)
