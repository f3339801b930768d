"""Turn a board's TOML file into a validated Target."""

from __future__ import annotations

import difflib
import itertools
import re
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from tinydeploy import resources
from tinydeploy.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_DRIVER = re.compile(r"[a-z0-9][a-z0-9_]{0,30}")
_PREFIX = re.compile(r"[a-z0-9_-]{0,40}")
_PROGRAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_FLAG = re.compile(r"-[A-Za-z0-9=.,+_-]{1,80}")
_ARGUMENT = re.compile(r"[A-Za-z0-9=.,:+_/-]{1,120}")
_CONFIGURATION = re.compile(r"(?!-)(?!.*\.\.)[A-Za-z0-9._/-]{0,80}")
_USB = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_LARGEST_FILE = 65_536
_IN_FLASH = ("vectors", "code", "constants")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Refuse unknown fields: a misspelt one would silently change nothing."""


class Memory(_Table, frozen=True, kw_only=True):
    """Describe one memory; `base` is an address, `size` is in bytes.

    `cost` is how many cycles an aligned 32-bit access takes more than in the core's fastest
    memory, on average: it decides what lies where when not everything fits one memory. `image` is
    the address of the same bytes in the image that is flashed, where it is another one.
    """

    name: str
    kind: Literal["flash", "ram"]
    base: int
    size: int
    cost: float = 0.0
    image: int | None = None


class Placement(_Table, frozen=True, kw_only=True):
    """Name the memory of each part; empty means the first of its kind.

    `constants` is where constants lie that code cannot read from its own memory; empty means there.
    `fast` is where --code-in-ram puts the model's code: a TCM or SRAM without wait states; empty
    means the memory of the data.
    """

    vectors: str = ""
    code: str = ""
    constants: str = ""
    data: str = ""
    arena: str = ""
    fast: str = ""


class Toolchain(_Table, frozen=True, kw_only=True):
    """Name the compiler by its prefix and the flags that select the core."""

    prefix: str
    flags: tuple[str, ...] = ()


class Uart(_Table, frozen=True, kw_only=True):
    """Name the serial driver (firmware/drivers/uart_<driver>.c), its address and line rate.

    `clock_hz` is the clock that the UART divides; 0 means the core's. `pins` says where to find
    the board's end of the line.
    """

    driver: str
    base: int
    baud: int = 115_200
    clock_hz: int = 0
    pins: str = ""


class Counter(_Table, frozen=True, kw_only=True):
    """Name the counter driver (firmware/drivers/counter_<driver>.c); `hz` is ticks per second."""

    driver: str
    hz: int
    base: int = 0


class Mark(_Table, frozen=True, kw_only=True):
    """Name the driver (firmware/drivers/mark_<driver>.c) of a pin that is high during inferences.

    `base` is the address of its port, `pin` the number there.
    """

    driver: str
    base: int
    pin: int


class Qemu(_Table, frozen=True, kw_only=True):
    """Name the emulator, its machine and further arguments."""

    binary: str
    machine: str
    args: tuple[str, ...] = ()


class Step(_Table, frozen=True, kw_only=True):
    """Describe one access to a register while the board is set up: clocks, power, pins.

    Without `mask` the register becomes `value`; with it only those bits do; with `wait` the
    set-up waits until they are. `register` and `fields` ("PLLM=8 PLLN=180") say the same in the
    words of the part's manual: tests compare the two with the part's register description.
    """

    register: str
    at: int
    mask: int = 0xFFFF_FFFF
    value: int
    wait: bool = False
    fields: str = ""


class Flash(_Table, frozen=True, kw_only=True):
    """Say how firmware gets onto the board: the programs that can, the best first.

    `pyocd`, `probe_rs` and `esptool` are the part's name there, `openocd` is a configuration file
    of OpenOCD's, `uf2_family` is the part's number in UF2 files (0: it takes none); `usb` has the
    vendor and product of the board's debug or serial port, such as "0483:374b".
    """

    order: tuple[
        Literal["probe-rs", "pyocd", "openocd", "esptool", "picotool", "uf2", "gdb"], ...
    ] = ()
    pyocd: str = ""
    openocd: str = ""
    probe_rs: str = ""
    uf2_family: int = 0
    esptool: str = ""
    picotool: bool = False
    usb: tuple[str, ...] = ()


class Target(_Table, frozen=True, kw_only=True):
    """Describe a board, an emulated machine or this computer.

    `clock_hz` is the core clock after the steps of `setup`; `boot` names what the part's own boot
    code wants in the image (firmware/drivers/boot_<boot>.c); `stack_bytes` is reserved for the
    stack; `chunk_bytes` is the most data in one frame; `hardware` says that the machine can be
    bought, so that figures of a real board make sense. `file` is the board file as it was read, if
    it is the user's; a board that ships with the package is known by its name.
    """

    name: str
    title: str
    architecture: Literal["cortex-m", "riscv", "host"]
    core: str
    isa: Literal[
        "armv6-m",
        "armv7-m",
        "armv7e-m",
        "armv8-m",
        "armv8.1-m-mve",
        "rv32imac",
        "rv32imac-rvv",
        "host",
    ]
    features: tuple[Literal["mul", "dsp", "mve", "zba", "zbb"], ...] = ()
    clock_hz: int
    stack_bytes: int
    chunk_bytes: int
    boot: str = ""
    setup: tuple[Step, ...] = ()
    hardware: bool = False
    memories: tuple[Memory, ...]
    placement: Placement = Placement()
    toolchain: Toolchain
    uart: Uart
    counter: Counter
    mark: Mark | None = None
    qemu: Qemu | None = None
    flash: Flash = Flash()
    sources: tuple[str, ...] = ()
    file: bytes = b""

    def memory(
        self, part: Literal["vectors", "code", "constants", "data", "arena", "fast"]
    ) -> Memory:
        """Return the memory that holds a part of the firmware."""
        wanted: str = getattr(self.placement, part)
        if not wanted and part not in ("code", "data"):
            wanted = getattr(self.placement, "code" if part in _IN_FLASH else "data")
        kind = "flash" if part in _IN_FLASH else "ram"
        for memory in self.memories:
            if memory.name == wanted or (not wanted and memory.kind == kind):
                return memory
        raise UsageError(f"target {self.name} has no memory for its {part}")

    @property
    def slow_flash(self) -> Memory | None:
        """Return the memory for constants that the memory of the code has no room for."""
        taken = (self.memory("code"), self.memory("vectors"), self.memory("constants"))
        others = [m for m in self.memories if m.kind == "flash" and m not in taken]
        return min(others, key=lambda m: m.cost, default=None)

    @property
    def flash_bytes(self) -> int:
        """Return the bytes of the memory or memories that hold code and constants."""
        return sum(m.size for m in {self.memory("code"), self.memory("constants")})

    @property
    def ram_bytes(self) -> int:
        """Return the bytes of the memory that holds the arena."""
        return self.memory("arena").size


def list_targets() -> tuple[Target, ...]:
    """Return all targets that ship with the package, by name."""
    return tuple(_load_file(path) for path in sorted(resources.folder("targets").glob("*.toml")))


def load_target(name_or_path: str | Path) -> Target:
    """Return the target of that name, or the one described by a .toml file of the user.

    Raises UsageError for an unknown name, naming the known ones, or an invalid file.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        return _load_file(Path(text), keep=True)
    known = {path.stem: path for path in resources.folder("targets").glob("*.toml")}
    if text in known:
        return _load_file(known[text])
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    raise UsageError(
        f"unknown target {text[:60]!r}",
        f"known targets: {', '.join(sorted(known))}",
        f"did you mean {close[0]}?" if close else "a path to a .toml board file is accepted, too",
    )


def _load_file(path: Path, keep: bool = False) -> Target:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
        if len(raw) > _LARGEST_FILE:
            raise UsageError(f"{path} is too large for a board file", f"over {_LARGEST_FILE} bytes")
        # TOML has no bytes, so that no file can set the field `file`.
        table = tomllib.loads(raw.decode())
        target = msgspec.convert(table, Target, strict=True, builtin_types=(bytes,))
    except OSError as error:
        raise UsageError(f"cannot read the board file {path}", error.strerror or "") from error
    except (ValueError, RecursionError) as error:  # TOML, UTF-8 and msgspec errors
        raise UsageError(
            f"{path} is not a valid board file",
            str(error),
            "compare it with the files that `tinydeploy targets` lists",
        ) from error
    problem = _problem(target)
    if problem:
        raise UsageError(f"{path} is not a valid board file", problem)
    return msgspec.structs.replace(target, file=raw) if keep else target


def _problem(target: Target) -> str:
    """Return what is wrong with the values of a target that has the right fields, or ''."""
    patterns = [
        ("name", target.name, _NAME),
        ("boot", target.boot or "none", _DRIVER),
        ("uart.driver", target.uart.driver, _DRIVER),
        ("counter.driver", target.counter.driver, _DRIVER),
        ("toolchain.prefix", target.toolchain.prefix, _PREFIX),
        *(("toolchain.flags", flag, _FLAG) for flag in target.toolchain.flags),
        *(("memories.name", memory.name, _NAME) for memory in target.memories),
    ]
    if target.mark:
        patterns += [("mark.driver", target.mark.driver, _DRIVER)]
    if target.qemu:
        patterns += [
            ("qemu.binary", target.qemu.binary, _PROGRAM),
            ("qemu.machine", target.qemu.machine, _ARGUMENT),
            *(("qemu.args", argument, _ARGUMENT) for argument in target.qemu.args),
        ]
    patterns += [
        ("flash.pyocd", target.flash.pyocd, _CONFIGURATION),
        ("flash.openocd", target.flash.openocd, _CONFIGURATION),
        ("flash.probe_rs", target.flash.probe_rs, _CONFIGURATION),
        ("flash.esptool", target.flash.esptool, _CONFIGURATION),
        *(("flash.usb", port, _USB) for port in target.flash.usb),
    ]
    for field, value, pattern in patterns:
        if not pattern.fullmatch(value):
            return f"{field} = {value!r} must match {pattern.pattern}"
    texts = [target.title, target.core, target.uart.pins]
    texts += [text for step in target.setup for text in (step.register, step.fields)]
    if any(not text.isprintable() or "*/" in text or text.endswith("\\") for text in texts):
        return "texts such as title and core must be printable, without '*/'"
    return _number_problem(target) or _memory_problem(target)


def _number_problem(target: Target) -> str:
    limits = [
        ("clock_hz", target.clock_hz, 1, 2**32 - 1),
        ("counter.hz", target.counter.hz, 1, 2**32 - 1),
        ("counter.base", target.counter.base, 0, 2**32 - 1),
        ("uart.base", target.uart.base, 0, 2**32 - 1),
        ("uart.baud", target.uart.baud, 1, 2**32 - 1),
        ("uart.clock_hz", target.uart.clock_hz, 0, 2**32 - 1),
        ("stack_bytes", target.stack_bytes, 512, 2**24),
        ("chunk_bytes", target.chunk_bytes, 128, 32_768),
        ("flash.uf2_family", target.flash.uf2_family, 0, 2**32 - 1),
    ]
    if target.mark:
        limits.append(("mark.base", target.mark.base, 0, 2**32 - 1))
        limits.append(("mark.pin", target.mark.pin, 0, 255))
    for memory in target.memories:
        if not 0 <= memory.cost <= 10_000:  # false for NaN, too
            return f"cost of {memory.name} = {memory.cost} must be 0 to 10000 cycles"
        limits.append((f"base of {memory.name}", memory.base, 0, 2**32 - 1))
        limits.append((f"size of {memory.name}", memory.size, 1, 2**32 - memory.base))
        limits.append((f"image of {memory.name}", memory.image or 0, 0, 2**32 - memory.size))
    for step in target.setup:
        limits += [(f"{step.register}", step.at, 0, 2**32 - 4)]
        limits += [(f"{step.register}", n, 0, 2**32 - 1) for n in (step.mask, step.value)]
        if step.at % 4 or step.value & ~step.mask:
            return f"setup of {step.register}: the address must be whole words, value within mask"
    for field, value, least, most in limits:
        if not least <= value <= most:
            return f"{field} = {value} must be {least} to {most}"
    if target.stack_bytes % 16:
        return f"stack_bytes = {target.stack_bytes} must be a multiple of 16"
    return ""


def _memory_problem(target: Target) -> str:
    names = [memory.name for memory in target.memories]
    if len(set(names)) != len(names):
        return "two memories have the same name"
    for kind in ("flash", "ram"):
        if not any(memory.kind == kind for memory in target.memories):
            return f"there is no memory of kind {kind!r}"
    ordered = sorted(target.memories, key=lambda memory: memory.base)
    for lower, upper in itertools.pairwise(ordered):
        if lower.base + lower.size > upper.base:
            return f"memories {lower.name} and {upper.name} overlap"
    for part in ("vectors", "code", "constants", "data", "arena", "fast"):
        wanted = getattr(target.placement, part)
        kind = "flash" if part in _IN_FLASH else "ram"
        if wanted and wanted not in {m.name for m in target.memories if m.kind == kind}:
            return f"placement.{part} = {wanted!r} is not a memory of kind {kind!r}"
    return ""
