"""Images of boards that no emulator here runs: what they hold, where, as the boot code wants it."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from firmware_models import ARENA_BYTES, SOURCES
from networks import residual_network

from tinydeploy import pipeline
from tinydeploy.build.firmware import build_firmware, firmware_files
from tinydeploy.build.size import symbol_address
from tinydeploy.build.toolchain import build_tools
from tinydeploy.targets import Target, list_targets, load_target

pytestmark = pytest.mark.qemu

BOARDS = [target for target in list_targets() if target.hardware and not target.qemu]
BOOT_ROM_WINDOW = 4096  # RP2350 Datasheet, 5.9.5: where the first block must begin


@dataclass(frozen=True)
class Image:
    """Hold what was linked: the ELF file, and the flat image that is flashed."""

    target: Target
    elf: Path
    flat: bytes

    def word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.flat, offset)[0])

    def loaded(self) -> list[tuple[int, int, int]]:
        """Return address, address in the image and bytes of each part that is flashed."""
        with self.elf.open("rb") as file:
            return [
                (s["p_vaddr"], s["p_paddr"], s["p_filesz"])
                for s in ELFFile(file).iter_segments("PT_LOAD")
                if s["p_filesz"]
            ]


def image_of_network(target: Target, folder: Path) -> Image:
    """Build a model as `tinydeploy deploy` does, with the kernels for this core."""
    network = folder.with_suffix(".tflite")
    network.write_bytes(residual_network(size=8))
    clock = pipeline.Clock()
    prepared = pipeline.prepare(
        network, "litert", "auto", clock, pipeline.core_of(target, "balanced")
    )
    generated = pipeline.generate_sources(prepared, target, clock)
    built = pipeline.build(prepared, generated, target, folder, "-O2", clock)
    return Image(target, built.elf, (folder / "firmware.bin").read_bytes())


def image_of_steps(target: Target, folder: Path) -> Image:
    """Build the hand-written model, which takes a third of the time."""
    built = build_firmware(SOURCES, target, ARENA_BYTES, folder)
    return Image(target, built.elf, (folder / "firmware.bin").read_bytes())


@pytest.mark.parametrize("target", BOARDS, ids=lambda target: target.name)
def test_image(target: Target, tmp_path: Path) -> None:
    check(image_of_steps(target, tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("target", BOARDS, ids=lambda target: target.name)
def test_image_of_a_network(target: Target, tmp_path: Path) -> None:
    check(image_of_network(target, tmp_path / "out"))


def check(image: Image) -> None:
    target = image.target
    base = target.memory("vectors")
    first = base.base if base.image is None else base.image
    with image.elf.open("rb") as file:
        elf = ELFFile(file)
        entry = elf.header["e_entry"]
        (mark,) = elf.get_section_by_name(".symtab").get_symbol_by_name("td_mark")
        # The board's own driver takes the place of the firmware's empty function.
        assert (mark["st_info"]["bind"] == "STB_WEAK") == (target.mark is None)
    # All that is flashed lies in flash, and the image is that and nothing else.
    flash = [(m.base if m.image is None else m.image, m.size) for m in target.memories
             if m.kind == "flash"]  # fmt: skip
    parts = image.loaded()
    assert min(place for _, place, _ in parts) == first
    assert max(place + size for _, place, size in parts) == first + len(image.flat)
    for _, place, size in parts:
        assert any(low <= place and place + size <= low + room for low, room in flash)
    # Code is where the core executes it, and the arena in RAM.
    code = target.memory("code")
    assert code.base <= entry < code.base + code.size
    arena = symbol_address(image.elf, "td_arena")
    home = target.memory("arena")
    assert home.base <= arena < home.base + home.size and arena % 16 == 0
    if target.architecture == "cortex-m":
        check_vectors(image, 0x100 if target.boot == "rp2040" else 0, entry)
    elif target.boot != "esp32c3":
        assert entry == base.base
    checks = {"rp2040": check_rp2040, "rp2350": check_rp2350, "esp32c3": check_esp32c3}
    if target.boot:
        checks[target.boot](image)


def check_vectors(image: Image, offset: int, entry: int) -> None:
    """ARMv7-M, B1.5.3: the stack pointer, then handlers as Thumb addresses."""
    stack, reset = image.word(offset), image.word(offset + 4)
    data = image.target.memory("data")
    assert stack == symbol_address(image.elf, "td_link_stack_top") and stack % 8 == 0
    assert data.base < stack <= data.base + data.size
    assert reset & 1 and reset & ~1 == entry & ~1
    vectors = image.target.memory("vectors").base + offset
    assert vectors == symbol_address(image.elf, "td_vectors")
    assert vectors % 128 == 0  # VTOR: a power of two that holds the table
    handlers = [image.word(offset + 4 * i) for i in range(2, 16)]
    code = image.target.memory("code")
    assert all(h == 0 or (h & 1 and code.base <= h < code.base + code.size) for h in handlers)
    assert handlers[1] and handlers[13]  # hard fault, SysTick


def check_rp2040(image: Image) -> None:
    """RP2040 Datasheet, 2.8.1.3.1: CRC-32 of 252 bytes, not reflected, behind them."""
    value = 0xFFFF_FFFF
    for byte in image.flat[:252]:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C1_1DB7 if value >> 31 else 0)) & 0xFFFF_FFFF
    assert image.word(252) == value
    assert any(image.flat[:64])


def check_rp2350(image: Image) -> None:
    """RP2350 Datasheet, 5.9.1 and 5.9.3.1: one block, a loop to itself, of this core's kind."""
    window = image.flat[:BOOT_ROM_WINDOW]
    start = window.index(struct.pack("<I", 0xFFFF_DED3))
    assert start % 4 == 0
    item, last, following, end = struct.unpack_from("<4I", image.flat, start + 4)
    assert (last, following, end) == (0x0000_01FF, 0, 0xAB12_3579)
    kind, size, flags = item & 0xFF, item >> 8 & 0xFF, item >> 16
    riscv = image.target.architecture == "riscv"
    assert (kind, size) == (0x42, 1)
    assert flags & 0xF == 1  # executable
    assert flags >> 4 & 3 == (0 if riscv else 2)  # security: not said, or secure
    assert flags >> 8 & 7 == (1 if riscv else 0)
    assert flags >> 12 & 7 == 1  # RP2350


def check_esp32c3(image: Image) -> None:
    """Direct boot: two words, then code; constants in the data mapping, at their place in flash."""
    assert image.word(0) == image.word(4) == 0xAEDB_041D
    assert symbol_address(image.elf, "td_reset") == 0x4200_0008
    assert symbol_address(image.elf, "td_trap") % 256 == 0
    code, constants = image.target.memory("code"), image.target.memory("constants")
    with image.elf.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".model_rodata").data()
    start = symbol_address(image.elf, "td_model")
    assert constants.base <= start < constants.base + constants.size
    assert image.flat[code.size : code.size + len(section)] == section
    assert constants.base <= symbol_address(image.elf, "td_link_data_image")


def test_only_instructions_that_the_core_has(tmp_path: Path) -> None:
    """An ESP32-C3 has no atomic instructions: RV32IMC in every object, libraries included."""
    target = load_target("esp32-c3-devkitm")
    image = image_of_network(target, tmp_path / "out")
    check(image)
    dump = target.toolchain.prefix + "objdump"
    text = subprocess.run(
        [dump, "-d", image.elf], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "td_reset" in text
    assert not [line for line in text.splitlines() if "\tlr.w" in line or "\tamo" in line]


@pytest.mark.parametrize("target", list_targets(), ids=lambda target: target.name)
def test_names_of_registers_reach_the_c(target: Target) -> None:
    if target.architecture == "host":
        assert not target.setup
        return
    header = firmware_files(target, ("a.c",), arena_bytes=64)["firmware/td_board.h"].decode()
    for step in target.setup:
        assert f"0x{step.at:08X}u, 0x{step.mask:08X}u, 0x{step.value:08X}u" in header
        assert step.register in header
    assert header.count("    X(0x") == len(target.setup)
    assert build_tools(target)
