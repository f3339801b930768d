"""Turn a target into the programs that build and run it, with their versions."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.errors import ToolchainError
from tinydeploy.targets import Target

_VERSION_SECONDS = 20.0
_VERSION_ARGUMENTS = {"esptool": "version", "picotool": "version"}

# How to install programs, by name: with Debian's or Ubuntu's apt, Fedora's dnf and Homebrew; ''
# where there is no package.
_PACKAGES = {
    "arm-none-eabi-": (
        "gcc-arm-none-eabi libnewlib-arm-none-eabi",
        "arm-none-eabi-gcc-cs arm-none-eabi-newlib",
        "--cask gcc-arm-embedded",
    ),
    "riscv64-unknown-elf-": ("gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf", "", ""),
    "qemu-system-arm": ("qemu-system-arm", "qemu-system-arm", "qemu"),
    "qemu-system-riscv32": ("qemu-system-misc", "qemu-system-riscv", "qemu"),
    "make": ("make", "make", "make"),
    "gcc": ("gcc libc6-dev", "gcc", "gcc"),
    "objcopy": ("binutils", "binutils", "binutils"),
    "openocd": ("openocd", "openocd", "open-ocd"),
    "gdb-multiarch": ("gdb-multiarch", "", "--cask gcc-arm-embedded"),
    "picotool": ("picotool", "picotool", "picotool"),
    "probe-rs": ("", "", "probe-rs-tools"),
}
# Where no package manager has it.
_ELSEWHERE = {
    "pyocd": "pip install 'tinydeploy[pyocd]'",
    "esptool": "pip install 'tinydeploy[esptool]'",
    "probe-rs": "cargo install probe-rs-tools --locked",
}
_MANAGERS = ("apt", "dnf", "brew")


@dataclass(frozen=True, slots=True)
class Tool:
    """Name a program, the command that installs it and, where installed, its place."""

    name: str
    install: str
    path: Path | None

    def require(self) -> Path:
        """Return the program's path; raise ToolchainError naming the package when missing."""
        if self.path is None:
            raise ToolchainError(
                f"{self.name} is not installed",
                "it was not found on the PATH",
                f"install it: {self.install}",
            )
        return self.path

    def version(self) -> str:
        """Return the version that the program reports, such as '12.2.1'.

        Raises ToolchainError when it is missing or does not say.
        """
        try:
            result = subprocess.run(
                [self.require(), _VERSION_ARGUMENTS.get(self.name, "--version")],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_VERSION_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{self.name} does not start", str(error)) from error
        first = (result.stdout or result.stderr).strip().partition("\n")[0]
        found = re.findall(r"\d+\.\d+(?:\.\d+)?", re.sub(r"\([^)]*\)", "", first))
        if not found:
            raise ToolchainError(f"{self.name} does not tell its version", first[:120])
        return str(found[0])


def find_tool(name: str) -> Tool:
    """Look a program up on the PATH; it may turn out missing."""
    path = shutil.which(name)
    return Tool(name, _install_command(name), Path(path) if path else None)


def _install_command(name: str) -> str:
    """Return how to install a program here, or where to get it."""
    if name in _ELSEWHERE and not (name in _PACKAGES and shutil.which("brew")):
        return _ELSEWHERE[name]
    prefixes = [p for p in ("arm-none-eabi-", "riscv64-unknown-elf-") if name.startswith(p)]
    packages = _PACKAGES.get(prefixes[0] if prefixes else name, (name,) * len(_MANAGERS))
    here = next((i for i, m in enumerate(_MANAGERS) if shutil.which(m)), 0)
    if not packages[here]:
        return f"{name} has no {_MANAGERS[here]} package; in Debian it is {packages[0]}"
    return f"{_MANAGERS[here]} install {packages[here]}"


def build_tools(target: Target) -> tuple[Tool, ...]:
    """Return the programs that building for a target needs."""
    prefix = target.toolchain.prefix
    return tuple(find_tool(name) for name in (f"{prefix}gcc", f"{prefix}objcopy", "make"))


def run_tools(target: Target) -> tuple[Tool, ...]:
    """Return the programs that running a target without a board needs."""
    return (find_tool(target.qemu.binary),) if target.qemu else ()


@dataclass(frozen=True, slots=True)
class Library:
    """Name a target's C library, its version and how to install it; '' where it is missing."""

    name: str
    version: str
    install: str

    @property
    def found(self) -> bool:
        """Tell whether the compiler finds the library."""
        return bool(self.version)


def library_name(target: Target) -> str:
    """Return the C library that a target's flags choose."""
    if any("picolibc" in flag for flag in target.toolchain.flags):
        return "picolibc"
    return "newlib" if target.toolchain.prefix else "the system's C library"


def c_library(target: Target) -> Library:
    """Ask the target's compiler for its C library, with the target's own flags."""
    prefix = target.toolchain.prefix
    compiler = find_tool(f"{prefix}gcc")
    flags = target.toolchain.flags
    version = ""
    if compiler.path:
        try:
            result = subprocess.run(
                [compiler.path, *flags, "-E", "-P", "-xc", "-"], input=_LIBRARY_VERSION,
                capture_output=True, text=True, errors="replace", timeout=_VERSION_SECONDS,
                check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{compiler.name} does not start", str(error)) from error
        found = re.search(r"VERSION ([0-9][0-9. ]*)", result.stdout.replace('"', ""))
        version = re.sub(r"\s", "", found[1]) if found and result.returncode == 0 else ""
    return Library(library_name(target), version, compiler.install)


# The macros that newlib, picolibc and glibc tell their version by; other systems' libraries have
# none, and headers that can be read are all that is known of them.
_LIBRARY_VERSION = """
#include <string.h>
#include <stdint.h>
#if defined(__PICOLIBC_VERSION__)
VERSION __PICOLIBC_VERSION__
#elif defined(_PICOLIBC_VERSION)
VERSION _PICOLIBC_VERSION
#elif defined(_NEWLIB_VERSION)
VERSION _NEWLIB_VERSION
#elif defined(__GLIBC__)
VERSION __GLIBC__ . __GLIBC_MINOR__
#else
VERSION 0
#endif
"""
