"""Building: sizes that add up, errors that name what is missing, and a Makefile of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from firmware_models import ARENA_BYTES, DIGEST, FIRMWARE_MODEL, SOURCES

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.build.size import FIRMWARE_FLASH_BYTES, FIRMWARE_RAM_BYTES, check_fit
from tinydeploy.build.toolchain import build_tools, run_tools
from tinydeploy.errors import FitError, ToolchainError, UsageError
from tinydeploy.targets import Target, list_targets, load_target

pytestmark = pytest.mark.qemu

BOARDS = [target for target in list_targets() if target.qemu]  # others: unit/test_boards.py
STEP_BYTES = 16  # of a board's set-up
MODEL_CONSTANTS = 256  # `weights` of the model, the rest is small


@pytest.mark.parametrize("target", BOARDS, ids=lambda target: target.name)
def test_sizes_add_up(target: Target, firmware_of: Callable[[Target], Firmware]) -> None:
    built = firmware_of(target)
    sizes = built.sizes
    assert built.elf.is_absolute() and built.elf.is_file()
    assert built.digest == DIGEST
    assert sizes.arena_bytes == ARENA_BYTES
    assert sizes.stack_bytes == target.stack_bytes
    assert sizes.flash_bytes == sizes.code_bytes + sizes.const_bytes + sizes.data_bytes
    assert sizes.ram_bytes == (
        sizes.data_bytes + sizes.bss_bytes + sizes.arena_bytes + sizes.stack_bytes
    )
    assert MODEL_CONSTANTS < sizes.model_const_bytes < MODEL_CONSTANTS + 100
    assert 100 < sizes.model_code_bytes < 700
    # What goes into flash is what the figures say (one image, unless vectors lie elsewhere).
    if target.memory("vectors") == target.memory("code"):
        assert abs(built.elf.with_suffix(".bin").stat().st_size - sizes.flash_bytes) <= 16
    # check_fit's bounds are below, but not far below, what the firmware takes.
    own_flash = sizes.flash_bytes - sizes.model_code_bytes - sizes.model_const_bytes
    own_flash -= STEP_BYTES * len(target.setup)
    own_ram = sizes.ram_bytes - ARENA_BYTES - target.stack_bytes - target.chunk_bytes
    assert FIRMWARE_FLASH_BYTES <= own_flash <= FIRMWARE_FLASH_BYTES + 1_536
    assert FIRMWARE_RAM_BYTES <= own_ram <= FIRMWARE_RAM_BYTES + 256


def test_an_arena_too_large_fails_in_check_and_linker(tmp_path: Path) -> None:
    target = load_target("microbit")
    check_fit(target, 8_192, 200_000)
    with pytest.raises(FitError, match=r"RAM \(ram\): 23,\d{3} bytes needed .*16,384 available"):
        check_fit(target, 20_000, 1_000)
    with pytest.raises(FitError, match=r"ram \(ram\): 2\d,\d{3} bytes needed, 16,384 available"):
        build_firmware(SOURCES, target, 20_000, tmp_path)


def test_constants_too_large_fail_in_check_and_linker(tmp_path: Path) -> None:
    target = load_target("microbit")
    with pytest.raises(FitError, match=r"flash \(flash\): 30\d,\d{3} bytes needed"):
        check_fit(target, 1_000, 300_000)
    big = FIRMWARE_MODEL.replace("weights[256]", "weights[300000]")
    big = big.replace("weights[i & 255]", "weights[i + seed * 1000]")
    with pytest.raises(FitError, match=r"flash \(flash\): 30\d,\d{3} bytes needed, 262,144"):
        build_firmware({"firmware_model.c": big.encode()}, target, 1_000, tmp_path)


def test_a_fit_that_is_close_is_left_to_the_linker() -> None:
    target = load_target("microbit")
    own = FIRMWARE_RAM_BYTES + target.chunk_bytes + target.stack_bytes
    check_fit(target, target.ram_bytes - own, target.flash_bytes - FIRMWARE_FLASH_BYTES)
    with pytest.raises(FitError):
        check_fit(target, target.ram_bytes - own + 1, 0)
    with pytest.raises(FitError):
        check_fit(target, 0, target.flash_bytes - FIRMWARE_FLASH_BYTES + 1)


def test_broken_sources_show_the_compilers_first_words(tmp_path: Path) -> None:
    sources = {**SOURCES, "broken.c": b"int td_broken = nonsense;\n"}
    with pytest.raises(ToolchainError, match=r"model/broken\.c:1:\d+: error: .*nonsense"):
        build_firmware(sources, load_target("mps2-an386"), ARENA_BYTES, tmp_path)


def test_a_missing_symbol_shows_the_linkers_words(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="undefined reference to `td_model'"):
        build_firmware({"empty.c": b""}, load_target("mps2-an386"), ARENA_BYTES, tmp_path)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("mps2-an386", "gcc-arm-none-eabi"),
        ("riscv-virt", "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"),
        ("host", "gcc"),
    ],
)
def test_a_missing_compiler_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolchainError, match=f"apt install {package}"):
        build_firmware(SOURCES, load_target(name), ARENA_BYTES, tmp_path)


@pytest.mark.parametrize("name", ["../x.c", "/x.c", "a b.c", "x.c;id", "$(id).c", "x.py", ""])
def test_unsafe_source_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="not a safe name"):
        build_firmware({name: b""}, load_target("host"), ARENA_BYTES, tmp_path)
    assert not any(tmp_path.iterdir())


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    host = load_target("host")
    with pytest.raises(UsageError, match="optimisation"):
        build_firmware(SOURCES, host, ARENA_BYTES, tmp_path, optimisation="-O2; id")
    with pytest.raises(UsageError, match="not a compiler flag"):
        build_firmware(SOURCES, host, ARENA_BYTES, tmp_path, extra_flags=("$(id)",))
    with pytest.raises(UsageError, match="makes no sense"):
        build_firmware(SOURCES, host, 0, tmp_path)


def test_a_driver_that_does_not_exist_lists_those_that_do(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "targets" / "microbit.toml").read_text()
    path = tmp_path / "odd.toml"
    path.write_text(text.replace('driver = "nrf51"', 'driver = "telegraph"'))
    with pytest.raises(UsageError, match=r"uart_telegraph\n.*cmsdk.*stm32"):
        build_firmware(SOURCES, load_target(path), ARENA_BYTES, tmp_path / "out")


def test_the_same_sources_give_the_same_bytes_anywhere(tmp_path: Path) -> None:
    target = load_target("netduinoplus2")
    one = build_firmware(SOURCES, target, ARENA_BYTES, tmp_path / "one")
    two = build_firmware(SOURCES, target, ARENA_BYTES, tmp_path / "a longer name")
    assert one.elf.read_bytes() == two.elf.read_bytes()
    for path in (tmp_path / "one").rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path


def test_a_user_can_rebuild_by_hand(tmp_path: Path) -> None:
    built = build_firmware(SOURCES, load_target("mps2-an386"), ARENA_BYTES, tmp_path)
    first = built.elf.read_bytes()
    environment = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, env=environment, timeout=60)
    assert not built.elf.exists()
    subprocess.run(["make"], cwd=tmp_path, check=True, env=environment, timeout=60)
    assert built.elf.read_bytes() == first


def test_a_second_build_follows_changes_and_repeats_nothing(tmp_path: Path) -> None:
    target = load_target("mps2-an386")
    build_firmware(SOURCES, target, ARENA_BYTES, tmp_path)
    object_file = tmp_path / "build" / "model" / "firmware_model.o"
    stamp = object_file.stat().st_mtime_ns
    build_firmware(SOURCES, target, ARENA_BYTES, tmp_path)
    assert object_file.stat().st_mtime_ns == stamp
    larger = build_firmware(SOURCES, target, 2 * ARENA_BYTES, tmp_path)
    assert larger.sizes.arena_bytes == 2 * ARENA_BYTES
    faster = build_firmware(SOURCES, target, ARENA_BYTES, tmp_path, optimisation="-O3")
    assert faster.sizes.arena_bytes == ARENA_BYTES
    assert object_file.stat().st_mtime_ns != stamp


def test_a_large_model_builds_quickly(tmp_path: Path) -> None:
    rows = ",\n".join(",".join(str((i * j) % 251 - 125) for j in range(64)) for i in range(5_000))
    declaration = "#include <stdint.h>\nextern const int8_t td_big[320000];\n"
    weights = declaration + f"const int8_t td_big[320000] = {{\n{rows}}};\n"
    model = FIRMWARE_MODEL.replace(
        "static uint32_t load(", "extern const int8_t td_big[320000];\nstatic uint32_t load("
    ).replace("bytes[140] = (uint8_t)", "bytes[140] = (uint8_t)td_big[bytes[3] * 1000] + (uint8_t)")
    sources = {"firmware_model.c": model.encode(), "weights.c": weights.encode()}
    started = time.monotonic()
    built = build_firmware(sources, load_target("mps2-an386"), 400_000, tmp_path)
    assert built.model_const_bytes > 320_000
    assert time.monotonic() - started < 15  # about 1 s on an idle machine


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_tools_tell_their_versions(target: Target) -> None:
    for tool in (*build_tools(target), *run_tools(target)):
        assert tool.version()[0].isdigit()
