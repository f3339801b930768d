"""Turn a linked ELF file into the bytes it takes of flash and RAM, and say what does not fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from tinydeploy.errors import FitError, ToolchainError
from tinydeploy.targets import Target

_WRITE, _ALLOCATE, _EXECUTE = 1, 2, 4  # sh_flags, System V ABI, "Sections"
_DIGEST_BYTES = 16

# What the firmware itself takes at least, without a model: lower bounds, so that check_fit refuses
# only what cannot fit (tests/qemu/test_firmware_build.py holds them to the builds).
FIRMWARE_FLASH_BYTES = 3_584
FIRMWARE_RAM_BYTES = 1_344  # besides stack and frame buffer, with counters for 256 steps


@dataclass(frozen=True, slots=True)
class Sizes:
    """Hold the bytes of a linked firmware.

    `code_bytes` and `const_bytes` count the whole program, `model_*` only what came from the
    model's own sources and survived the linker. `flash_bytes` is code, constants and the initial
    image of .data; `ram_bytes` is data, bss, arenas, the stack reserve and code that runs from RAM;
    `input_bytes` are besides: they stand in for inputs in flash.
    """

    code_bytes: int
    const_bytes: int
    data_bytes: int
    bss_bytes: int
    arena_bytes: int
    stack_bytes: int
    flash_bytes: int
    ram_bytes: int
    model_code_bytes: int
    model_const_bytes: int
    code_in_ram_bytes: int
    input_bytes: int = 0


def measure(elf: Path, target: Target, model_objects: tuple[Path, ...]) -> Sizes:
    """Read the sizes of a linked firmware.

    The linker scripts keep the model's code and constants in sections of their own. The host has
    no such script: there the model's figures come from its object files, before the linker drops
    unused functions. Raises ToolchainError when the file is not what the linker should write.
    """
    with elf.open("rb") as file:
        image = _open(file, elf)
        sections = [s for s in image.iter_sections() if s["sh_flags"] & _ALLOCATE]
        arena = _symbol(image, "td_arena")["st_size"] + _total(image, r"td_arena[1-9]\d*")
        inputs = _total(image, r"td_input_\d+")
        if target.architecture == "host":
            kinds = _kinds(sections)
            code, const, data = kinds["code"], kinds["const"], kinds["data"]
            stack = target.stack_bytes
            bss = kinds["bss"] - arena - stack - inputs
        else:
            by_name = {s.name: int(s["sh_size"]) for s in sections}
            code = sum(by_name.get(n, 0) for n in (".vectors", ".model_text", ".text"))
            const = sum(by_name.get(n, 0) for n in (".model_rodata", ".rodata"))
            data, stack = by_name.get(".data", 0), by_name.get(".stack", 0)
            bss = by_name.get(".bss", 0) + by_name.get(".td_noinit", 0)
            model_code = by_name.get(".model_text", 0)
            model_const = by_name.get(".model_rodata", 0)
            moved = _in_ram(sections, target)
    if target.architecture == "host":
        model_code, model_const = _object_sizes(model_objects)
        moved = 0
    return Sizes(
        code_bytes=code,
        const_bytes=const,
        data_bytes=data,
        bss_bytes=bss,
        arena_bytes=arena,
        stack_bytes=stack,
        flash_bytes=code + const + data,
        ram_bytes=data + bss + arena + stack + moved,
        model_code_bytes=model_code,
        model_const_bytes=model_const,
        code_in_ram_bytes=moved,
        input_bytes=inputs,
    )


def _in_ram(sections: list[Section], target: Target) -> int:
    """Return the bytes of the model's code if it runs from RAM, else 0."""
    for section in sections:
        if section.name == ".model_text":
            address = section["sh_addr"]
            ram = (m for m in target.memories if m.kind == "ram")
            if any(m.base <= address < m.base + m.size for m in ram):
                return int(section["sh_size"])
    return 0


def section_range(elf: Path, name: str) -> tuple[int, int]:
    """Return the first address of a section and the one behind it; raises ToolchainError."""
    with elf.open("rb") as file:
        section = _open(file, elf).get_section_by_name(name)
        if section is None:
            raise ToolchainError(f"{elf.name} has no section {name}")
        return int(section["sh_addr"]), int(section["sh_addr"] + section["sh_size"])


def read_digest(elf: Path) -> bytes:
    """Return the model digest that a linked firmware carries: the first field of `td_model`."""
    with elf.open("rb") as file:
        image = _open(file, elf)
        symbol = _symbol(image, "td_model")
        section = image.get_section(symbol["st_shndx"])
        offset = symbol["st_value"] - section["sh_addr"]
        return bytes(section.data()[offset : offset + _DIGEST_BYTES])


def symbol_address(elf: Path, name: str) -> int:
    """Return the address of a symbol of a linked firmware."""
    with elf.open("rb") as file:
        return int(_symbol(_open(file, elf), name)["st_value"])


def check_fit(
    target: Target, arena_bytes: int, const_bytes: int, code_bytes: int = 0, max_steps: int = 256
) -> None:
    """Raise FitError when a model cannot fit a target, before anything is built.

    `const_bytes` and `code_bytes` are the model's own; what the firmware takes at least is added.
    What passes here can still fail in the linker, which has the last word (build_firmware).
    """
    code, arena, data = target.memory("code"), target.memory("arena"), target.memory("data")
    own_flash = FIRMWARE_FLASH_BYTES
    own_ram = FIRMWARE_RAM_BYTES + target.chunk_bytes + 4 * (max_steps - 256) + target.stack_bytes
    problems = []
    flash = const_bytes + code_bytes + own_flash
    if flash > code.size:
        problems.append(
            f"flash ({code.name}): {flash:,} bytes needed ({const_bytes:,} constants, "
            f"{code_bytes:,} model code, {own_flash:,} firmware), {code.size:,} available"
        )
    shared = own_ram if arena.name == data.name else 0
    if arena_bytes + shared > arena.size:
        parts = f"{arena_bytes:,} arena" + (f", {shared:,} stack and firmware" if shared else "")
        problems.append(
            f"RAM ({arena.name}): {arena_bytes + shared:,} bytes needed ({parts}), "
            f"{arena.size:,} available"
        )
    if arena.name != data.name and own_ram > data.size:
        problems.append(
            f"RAM ({data.name}): {own_ram:,} bytes needed (stack and firmware), "
            f"{data.size:,} available"
        )
    if problems:
        raise FitError(
            f"the model does not fit {target.name}",
            "; ".join(problems),
            "choose a board with more memory or a smaller model",
        )


def _open(file: object, path: Path) -> ELFFile:
    try:
        return ELFFile(file)
    except ELFError as error:
        raise ToolchainError(f"{path.name} is not an ELF file", str(error)) from error


def _symbol(image: ELFFile, name: str) -> Symbol:
    table = image.get_section_by_name(".symtab")
    found = table.get_symbol_by_name(name) if isinstance(table, SymbolTableSection) else None
    if not found:
        raise ToolchainError(f"the linked firmware has no symbol {name}", "was it stripped?")
    return found[0]


def _total(image: ELFFile, pattern: str) -> int:
    """Return the bytes of all symbols of a name."""
    table = image.get_section_by_name(".symtab")
    symbols = table.iter_symbols() if isinstance(table, SymbolTableSection) else ()
    return sum(int(s["st_size"]) for s in symbols if re.fullmatch(pattern, s.name))


def _kinds(sections: list[Section]) -> dict[str, int]:
    sizes = {"code": 0, "const": 0, "data": 0, "bss": 0}
    for section in sections:
        flags = section["sh_flags"]
        if flags & _EXECUTE:
            kind = "code"
        elif not flags & _WRITE:
            kind = "const"
        else:
            kind = "bss" if section["sh_type"] == "SHT_NOBITS" else "data"
        sizes[kind] += section["sh_size"]
    return sizes


def _object_sizes(objects: tuple[Path, ...]) -> tuple[int, int]:
    code = const = 0
    for path in objects:
        with path.open("rb") as file:
            for section in _open(file, path).iter_sections():
                if section.name.startswith(".text"):
                    code += section["sh_size"]
                elif section.name.startswith(".rodata"):
                    const += section["sh_size"]
    return code, const
