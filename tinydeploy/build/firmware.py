"""Turn model sources and a target into a linked firmware that a Makefile can rebuild."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import jinja2

from tinydeploy import resources
from tinydeploy.build.size import Sizes, measure, read_digest
from tinydeploy.build.toolchain import build_tools
from tinydeploy.errors import FitError, ToolchainError, UsageError
from tinydeploy.plan.layout import Arena
from tinydeploy.targets import Target

_BUILD_SECONDS = 600.0
_JOBS = 2
_OPTIMISATION = re.compile(r"-O[0-3sgz]?")
_SOURCE = re.compile(r"(?:[A-Za-z0-9_]+/)*[A-Za-z0-9_]+\.(?:c|h)")
_FLAG = re.compile(r"-[A-Za-z0-9=.,+_-]+")
_OVERFLOW = re.compile(r"region [`']([^`']+)[`'] overflowed by (\d+) bytes")
_TROUBLE = re.compile(r": (?:fatal )?error:|undefined reference|incompatible|cannot find")
_ARCHITECTURE_FOLDERS = {"cortex-m": "cortex_m", "riscv": "riscv", "host": "host"}


@dataclass(frozen=True, slots=True)
class Firmware:
    """Hold a linked firmware: its files, the model it carries and its sizes in bytes."""

    elf: Path
    target: str
    digest: bytes
    sizes: Sizes

    @property
    def code_bytes(self) -> int:
        """Return the machine code of the whole program."""
        return self.sizes.code_bytes

    @property
    def const_bytes(self) -> int:
        """Return the constants of the whole program."""
        return self.sizes.const_bytes

    @property
    def data_bytes(self) -> int:
        """Return the initialised variables."""
        return self.sizes.data_bytes

    @property
    def bss_bytes(self) -> int:
        """Return the zeroed variables, without the arena."""
        return self.sizes.bss_bytes

    @property
    def flash_bytes(self) -> int:
        """Return all that must be in flash."""
        return self.sizes.flash_bytes

    @property
    def ram_bytes(self) -> int:
        """Return all RAM: data, bss, arena and stack reserve."""
        return self.sizes.ram_bytes

    @property
    def model_code_bytes(self) -> int:
        """Return the machine code of the model's own sources."""
        return self.sizes.model_code_bytes

    @property
    def model_const_bytes(self) -> int:
        """Return the constants of the model's own sources."""
        return self.sizes.model_const_bytes


def build_firmware(
    model_sources: Mapping[str, bytes],
    target: Target,
    arena_bytes: int,
    out_dir: Path,
    *,
    optimisation: str = "-O2",
    max_steps: int = 256,
    extra_flags: tuple[str, ...] = (),
    code_in_ram: bool = False,
    arenas: tuple[Arena, ...] = (),
) -> Firmware:
    """Write sources, linker script and Makefile to `out_dir`, run make and measure the result.

    `max_steps` sizes the table of per-step counters. `extra_flags` go to compiler and linker
    (sanitizers on the host). `code_in_ram` has the model's code copied to the target's fast memory
    at start. `arenas` says in which memories the arenas lie, the first one of `arena_bytes`, where
    there are several. Files that have not changed are left alone, so that a second build
    compiles only what differs.
    Raises FitError when the linker says so, ToolchainError when a tool is missing or fails.
    """
    if not _OPTIMISATION.fullmatch(optimisation):
        raise UsageError(f"{optimisation!r} is not an optimisation level", hint="try -O2 or -Os")
    for flag in extra_flags:
        if not _FLAG.fullmatch(flag):
            raise UsageError(f"{flag!r} is not a compiler flag")
    if not 1 <= arena_bytes < 2**31:
        raise UsageError(f"an arena of {arena_bytes} bytes makes no sense")
    files = firmware_files(
        target,
        tuple(model_sources),
        arena_bytes=arena_bytes,
        optimisation=optimisation,
        max_steps=max_steps,
        extra_flags=extra_flags,
        code_in_ram=code_in_ram,
        arenas=arenas,
    )
    for name, content in model_sources.items():
        files[f"model/{name}"] = content
    for tool in build_tools(target):
        tool.require()
    try:
        for name, content in files.items():
            _write_if_changed(out_dir / name, content)
    except OSError as error:
        raise UsageError(f"cannot write to {out_dir}", str(error)) from error
    run_make(out_dir, target)
    elf = out_dir / "firmware.elf"
    objects = tuple(
        (out_dir / "build" / "model" / name).with_suffix(".o")
        for name in model_sources
        if name.endswith(".c")
    )
    return Firmware(elf.resolve(), target.name, read_digest(elf), measure(elf, target, objects))


def firmware_files(
    target: Target,
    model_files: tuple[str, ...],
    *,
    arena_bytes: int,
    optimisation: str = "-O2",
    max_steps: int = 256,
    extra_flags: tuple[str, ...] = (),
    code_in_ram: bool = False,
    arenas: tuple[Arena, ...] = (),
) -> dict[str, bytes]:
    """Return everything but the model: path within the output folder -> content."""
    for name in model_files:
        if not _SOURCE.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is not a safe name for a C source file")
    host = target.architecture == "host"
    root = resources.folder("firmware")
    sources = _firmware_sources(root, target)
    files = {f"firmware/{path.name}": path.read_bytes() for path in sources}
    slow = target.slow_flash
    placement = {
        "vectors": target.memory("vectors").name,
        "code": target.memory("code").name,
        "constants": target.memory("constants").name,
        "data": target.memory("data").name,
        "arena": (arenas[0].memory if arenas else "") or target.memory("arena").name,
        "slow": slow.name if slow and not host else "",
        "inputs": max((m for m in target.memories if m.kind == "ram"), key=lambda m: m.size).name,
        "fast": target.memory("fast").name if code_in_ram else "",
    }
    values = {
        "target": target,
        "placement": placement,
        "images": {
            m.name: m.name if m.image is None else f"{m.name}_image" for m in target.memories
        },
        "arenas": arenas,
        "arena_bytes": arena_bytes,
        "arena_section": ".bss.td_arena",
        "max_steps": max_steps,
        "optimisation": optimisation,
        "core_flags": (*target.toolchain.flags, *(("-pthread",) if host else ()), *extra_flags),
        "link_flags": _link_flags(host),
        "linker_script": not host,
        "products": _products(host, slow is not None),
        "model_stems": sorted(name[:-2] for name in model_files if name.endswith(".c")),
        "firmware_stems": sorted(path.stem for path in sources if path.suffix == ".c"),
    }
    files["firmware/td_board.h"] = _render(root / "common", "td_board.h.j2", values)
    files["Makefile"] = _render(root / "common", "Makefile.j2", values)
    if not host:
        folder = root / "arch" / _ARCHITECTURE_FOLDERS[target.architecture]
        files["firmware/link.ld"] = _render(folder, "link.ld.j2", values)
    return files


def _products(host: bool, slow: bool) -> tuple[str, ...]:
    """Return the files that make leaves; constants in a second flash are an image of their own."""
    if host:
        return ("firmware.elf",)
    images = ("firmware.elf", "firmware.bin", "firmware.hex")
    return (*images, "firmware_slow.bin") if slow else images


def _firmware_sources(root: Path, target: Target) -> list[Path]:
    architecture = root / "arch" / _ARCHITECTURE_FOLDERS[target.architecture]
    names = [f"counter_{target.counter.driver}"]
    if target.architecture == "host":
        names += ["link_host"]
    else:
        names += ["link_board", f"uart_{target.uart.driver}", "setup"]
        names += [f"boot_{target.boot}"] if target.boot else []
    names += [f"mark_{target.mark.driver}"] if target.mark else []
    drivers = [root / "drivers" / f"{name}.c" for name in names]
    for path in drivers:
        if not path.is_file():
            kind = path.stem.partition("_")[0]
            known = sorted(p.stem.partition("_")[2] for p in path.parent.glob(f"{kind}_*.c"))
            raise UsageError(
                f"target {target.name} names a driver that does not exist: {path.stem}",
                f"{kind} drivers: {', '.join(known)}",
            )
    found = [*(root / "common").glob("*.[ch]"), *architecture.glob("*.[ch]"), *drivers]
    return sorted(found, key=lambda path: path.name)


def _link_flags(host: bool) -> tuple[str, ...]:
    shared = ("-Wl,--gc-sections",)
    if host:
        return shared
    return (*shared, "-nostartfiles", "-static", "-Tfirmware/link.ld", "-Wl,-Map=firmware.map")


@cache
def _environment(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _render(folder: Path, name: str, values: Mapping[str, object]) -> bytes:
    return _environment(folder).get_template(name).render(values).encode()


def _write_if_changed(path: Path, content: bytes) -> None:
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def run_make(out_dir: Path, target: Target) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    environment["LC_ALL"] = "C"  # the linker's messages are read below
    try:
        result = subprocess.run(
            ["make", "--no-print-directory", f"-j{_JOBS}"],
            cwd=out_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError("the build did not finish", str(error)) from error
    if result.returncode != 0:
        _raise_overflow(result.stderr, target)
        all_lines = result.stderr.splitlines() or ["make said nothing"]
        shown = [line for line in all_lines if _TROUBLE.search(line)][:3] or all_lines[:3]
        raise ToolchainError(
            f"the firmware for {target.name} does not compile",
            "\n".join(line[:300] for line in shown),
            f"run make in {PurePosixPath(out_dir)} to see everything",
        )


def _raise_overflow(messages: str, target: Target) -> None:
    excess: dict[str, int] = {}
    for name, count in _OVERFLOW.findall(messages):
        excess[name] = max(int(count), excess.get(name, 0))
    figures = [
        f"{m.kind} ({m.name}): {m.size + excess[m.name]:,} bytes needed, {m.size:,} available, "
        f"{excess[m.name]:,} too many"
        for m in target.memories
        if m.name in excess
    ]
    if figures:
        raise FitError(
            f"the firmware does not fit {target.name}",
            "; ".join(figures),
            "choose a board with more memory or a smaller model",
        )
