"""Turn a linked ELF file into the bytes it takes of flash and RAM, and say what does not fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from tinydeploy.errors import FitError, ToolchainError
from tinydeploy.plan.layout import Arena
from tinydeploy.plan.memories import Room
from tinydeploy.targets import Target

_WRITE, _ALLOCATE, _EXECUTE = 1, 2, 4  # sh_flags, System V ABI, "Sections"
_DIGEST_BYTES = 16

_KERNEL_BYTES, _NODE_BYTES = 2_560, 128  # code of a kernel; code and parameters of a node
_SPARE_RAM_BYTES = 320  # by which FIRMWARE_RAM_BYTES may be too low, and alignment

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
    `input_bytes` are besides: they stand in for inputs in flash. `slow_const_bytes` are those of
    the model's constants that lie in the second flash memory; `memories` has the bytes used of each
    memory by name.
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
    slow_const_bytes: int = 0
    memories: tuple[tuple[str, int], ...] = ()


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
            slow = by_name.get(".model_slow", 0)
            const = sum(by_name.get(n, 0) for n in (".model_rodata", ".rodata")) + slow
            data, stack = by_name.get(".data", 0), by_name.get(".stack", 0)
            bss = by_name.get(".bss", 0) + by_name.get(".td_noinit", 0)
            model_code = by_name.get(".model_text", 0)
            model_const = by_name.get(".model_rodata", 0) + slow
            moved = _in_ram(sections, target)
            memories = _used(sections, target, data + moved)
    if target.architecture == "host":
        model_code, model_const = _object_sizes(model_objects)
        moved = slow = 0
        memories = ()
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
        slow_const_bytes=slow,
        memories=memories,
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


def _used(sections: list[Section], target: Target, images: int) -> tuple[tuple[str, int], ...]:
    """Return the bytes used of each memory; `images` are what the start-up copies from flash."""
    used = {m.name: 0 for m in target.memories}
    used[target.memory("constants").name] += images
    for section in sections:
        for m in target.memories:
            inside = m.base <= section["sh_addr"] < m.base + m.size
            if inside and section.name != ".td_inputs":
                used[m.name] += int(section["sh_size"])
    return tuple(used.items())


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


def rooms_of(target: Target) -> tuple[Room, ...]:
    """Return the memories that can hold an arena: where the board file wants it, then the others.

    Beside the firmware's own bytes in the memory of its data.
    """
    home, data = target.memory("arena"), target.memory("data")
    own = _own_ram(target, 256) + _SPARE_RAM_BYTES
    others = [m for m in target.memories if m.kind == "ram" and m != home]
    return tuple(
        Room(m.name, max(m.size - (own if m == data else 0), 0), m.cost) for m in (home, *others)
    )


def const_room(target: Target, functions: Sequence[str]) -> int | None:
    """Return the bytes for constants in the memory of the code, None without another flash memory.

    What the model's code will take is known after the build only: this keeps off more than any
    measured model took, so that a few constants may lie in the slow memory for nothing.
    """
    if target.slow_flash is None:
        return None
    code = _KERNEL_BYTES * len(set(functions)) + _NODE_BYTES * len(functions)
    return max(target.memory("code").size - FIRMWARE_FLASH_BYTES - code, 0)


def _own_ram(target: Target, max_steps: int) -> int:
    """Return what the firmware itself takes at least in the memory of its data."""
    counters = 4 * (max_steps - 256)
    return FIRMWARE_RAM_BYTES + target.chunk_bytes + counters + target.stack_bytes


def check_fit(
    target: Target,
    arena_bytes: int,
    const_bytes: int,
    code_bytes: int = 0,
    max_steps: int = 256,
    arenas: tuple[Arena, ...] = (),
    slow_const_bytes: int = 0,
) -> None:
    """Raise FitError when a model cannot fit a target, before anything is built.

    `const_bytes` and `code_bytes` are the model's own; what the firmware takes at least is added.
    `arenas` says where the arena lies when there are several; `slow_const_bytes` are the constants
    in the second flash memory, out of `const_bytes`.
    What passes here can still fail in the linker, which has the last word (build_firmware).
    """
    code, home, data = target.memory("code"), target.memory("arena"), target.memory("data")
    own_flash, own_ram = FIRMWARE_FLASH_BYTES, _own_ram(target, max_steps)
    problems = []
    const_bytes -= slow_const_bytes
    beside = target.memory("constants")
    with_code = const_bytes if beside == code else 0
    flash = with_code + code_bytes + own_flash
    if flash > code.size:
        problems.append(
            f"flash ({code.name}): {flash:,} bytes needed ({with_code:,} constants, "
            f"{code_bytes:,} model code, {own_flash:,} firmware), {code.size:,} available"
        )
    if const_bytes - with_code > beside.size:
        problems.append(
            f"flash ({beside.name}): {const_bytes:,} bytes of constants, {beside.size:,} available"
        )
    slow = target.slow_flash
    if slow_const_bytes and (slow is None or slow_const_bytes > slow.size):
        problems.append(
            f"flash ({slow.name if slow else 'none'}): {slow_const_bytes:,} bytes of constants, "
            f"{slow.size if slow else 0:,} available"
        )
    places = {a.memory: a.bytes for a in arenas} or {home.name: arena_bytes}
    for memory in target.memories:
        own = own_ram if memory == data else 0
        arena = places.get(memory.name, 0)
        if arena + own > memory.size:
            parts = [f"{arena:,} arena"] if arena else []
            parts += [f"{own:,} stack and firmware"] if own else []
            problems.append(
                f"RAM ({memory.name}): {arena + own:,} bytes needed ({', '.join(parts)}), "
                f"{memory.size:,} available"
            )
            others = [r.memory for r in rooms_of(target)[1:]]
            if memory == home and arena and not arenas and others:
                problems.append(f"it cannot be divided over {', '.join(others)} either")
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
