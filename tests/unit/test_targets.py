"""Board files: all that ship load, and all that is wrong is refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy import resources
from tinydeploy.build.firmware import firmware_files
from tinydeploy.errors import UsageError
from tinydeploy.targets import Target, list_targets, load_target

NAMES = {
    "hifive1",
    "host",
    "lm3s6965evb",
    "microbit",
    "mps2-an385",
    "mps2-an386",
    "mps2-an500",
    "mps2-an505",
    "mps3-an547",
    "netduinoplus2",
    "riscv-virt",
    "riscv-virt-rvv",
    "riscv-virt-zb",
}
GOOD = (resources.folder("targets") / "microbit.toml").read_text()


def test_all_shipped_targets_load_under_their_file_name() -> None:
    targets = list_targets()
    assert {target.name for target in targets} >= NAMES
    for target in targets:
        assert load_target(target.name) == target
        assert target.sources, f"{target.name} cites nothing"


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_each_target_names_drivers_that_exist(target: Target) -> None:
    drivers = resources.folder("firmware") / "drivers"
    names = [f"counter_{target.counter.driver}"]
    if target.architecture != "host":
        names += [f"uart_{target.uart.driver}", "setup"]
    for name in names:
        assert (drivers / f"{name}.c").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "mps2-an385",
        "mps2-an386",
        "mps2-an500",
        "mps2-an505",
        "mps3-an547",
        "riscv-virt",
        "riscv-virt-rvv",
        "riscv-virt-zb",
    ],
)
def test_emulated_machines_hold_a_large_model(name: str) -> None:
    target = load_target(name)
    assert target.flash_bytes > 1_000_000 + 200_000
    assert target.ram_bytes > 400_000 + 100_000


@pytest.mark.parametrize(
    ("name", "flash", "ram"),
    [
        ("microbit", 256 * 1024, 16 * 1024),
        ("netduinoplus2", 1024 * 1024, 128 * 1024),
        ("lm3s6965evb", 256 * 1024, 64 * 1024),
        ("hifive1", 4 * 1024 * 1024 - 64 * 1024, 16 * 1024),
    ],
)
def test_boards_have_the_sizes_of_their_data_sheets(name: str, flash: int, ram: int) -> None:
    target = load_target(name)
    assert (target.flash_bytes, target.ram_bytes) == (flash, ram)
    assert target.hardware


def test_parts_go_where_the_board_file_says() -> None:
    target = load_target("mps3-an547")
    assert target.memory("vectors").name == "itcm"
    assert target.memory("code").name == "sram"
    assert target.memory("data").name == target.memory("arena").name == "sram2"


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        load_target("mps2-an368")
    message = str(caught.value)
    assert "mps2-an386?" in message
    assert all(name in message for name in NAMES)
    with pytest.raises(UsageError, match=r"a path to a \.toml"):
        load_target("qqqq")


@pytest.mark.parametrize("name", ["../microbit", "/etc/passwd", "", "microbit\n", "a" * 10_000])
def test_odd_names_are_unknown_targets(name: str) -> None:
    with pytest.raises(UsageError, match="unknown target"):
        load_target(name)


def test_a_board_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('name = "microbit"', 'name = "mine"', 1))
    assert load_target(path).name == load_target(str(path)).name == "mine"
    assert load_target(path).file == path.read_bytes() and not load_target("microbit").file


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("clock_hz = 16_000_000", "clock_hz = '16 MHz'", "clock_hz"),
        ("clock_hz = 16_000_000", "clock_hz = -1", "clock_hz = -1"),
        ("clock_hz = 16_000_000", "clok_hz = 16_000_000", "clok_hz"),
        ("clock_hz = 16_000_000", "", "clock_hz"),
        ("size = 0x4000\n", "size = 0\n", "size of ram = 0"),
        ("size = 0x4000\n", "size = -5\n", "size of ram = -5"),
        ("size = 0x4000\n", "size = 0x4000\ncost = -1.0\n", "cost of ram = -1.0"),
        ("size = 0x4000\n", "size = 0x4000\ncost = nan\n", "cost of ram = nan"),
        ("size = 0x4000\n", "size = 0xffffffff\n", "size of ram"),
        ("base = 0x20000000", "base = 0x00010000", "overlap"),
        ('kind = "ram"', 'kind = "flash"', "no memory of kind 'ram'"),
        ('kind = "ram"', 'kind = "rom"', "rom"),
        ('name = "ram"', 'name = "flash"', "same name"),
        ('name = "ram"', 'name = "ra m"', "memories.name"),
        ('name = "microbit"', 'name = "../x"', "name = '../x'"),
        ('isa = "armv6-m"', 'isa = "z80"', "z80"),
        ('driver = "nrf51"', 'driver = "../../etc"', "uart.driver"),
        ("stack_bytes = 2048", "stack_bytes = 2047", "multiple of 16"),
        ('"-mthumb"', '"-mthumb; touch x"', "toolchain.flags"),
        ('"-mthumb"', '"$(shell id)"', "toolchain.flags"),
        ("arm-none-eabi-", "/tmp/x/", "toolchain.prefix"),
        ('machine = "microbit"', 'machine = "a b"', "qemu.machine"),
        ('title = "BBC', 'title = "*/ BBC', "title"),
        ("[toolchain]", '[placement]\ncode = "moon"\n[toolchain]', "placement.code"),
        ("[uart]", "[uart", "line"),
        ("clock_hz = 16_000_000", 'clock_hz = 16_000_000\nfile = "QQ=="', "Expected `bytes`"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert GOOD.count(old) >= 1
    path = tmp_path / "bad.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load_target(path)
    assert "not a valid board file" in str(caught.value)
    assert reason in str(caught.value)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_board_file(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("raw") / "raw.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError):
        load_target(path)


def test_files_that_are_missing_or_huge(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_target(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot read"):
        (tmp_path / "folder.toml").mkdir()
        load_target(tmp_path / "folder.toml")
    (tmp_path / "big.toml").write_bytes(b"#" * 100_000)
    with pytest.raises(UsageError, match="too large"):
        load_target(tmp_path / "big.toml")


def test_loading_targets_imports_nothing_heavy() -> None:
    code = (
        "import sys, tinydeploy.targets as t; t.list_targets(); "
        "print([m for m in ('numpy', 'jinja2', 'elftools', 'serial') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_pin_for_power_analysers_is_optional(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(GOOD + '\n[mark]\ndriver = "none_such"\nbase = 0x40020000\npin = 5\n')
    target = load_target(path)
    with pytest.raises(UsageError, match="driver that does not exist: mark_none_such"):
        firmware_files(target, (), arena_bytes=64)
    assert (
        b"TD_MARK"
        not in firmware_files(load_target("microbit"), (), arena_bytes=64)["firmware/td_board.h"]
    )
    path.write_text(path.read_text().replace("pin = 5", "pin = 256"))
    with pytest.raises(UsageError, match=r"mark\.pin = 256"):
        load_target(path)
