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

# Debian and Ubuntu packages by program name.
_PACKAGES = {
    "arm-none-eabi-": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
    "make": "make",
    "gcc": "gcc",
    "objcopy": "binutils",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """Name a program, the Debian packages that carry it and, where installed, its place."""

    name: str
    packages: str
    path: Path | None

    def require(self) -> Path:
        """Return the program's path; raise ToolchainError naming the package when missing."""
        if self.path is None:
            raise ToolchainError(
                f"{self.name} is not installed",
                "it was not found on the PATH",
                f"install it, on Debian or Ubuntu: apt install {self.packages}",
            )
        return self.path

    def version(self) -> str:
        """Return the version that the program reports, such as '12.2.1'.

        Raises ToolchainError when it is missing or does not say.
        """
        try:
            result = subprocess.run(
                [self.require(), "--version"],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_VERSION_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{self.name} does not start", str(error)) from error
        first = result.stdout.partition("\n")[0]
        found = re.findall(r"\d+\.\d+(?:\.\d+)?", re.sub(r"\([^)]*\)", "", first))
        if not found:
            raise ToolchainError(f"{self.name} does not tell its version", first[:120])
        return str(found[0])


def find_tool(name: str) -> Tool:
    """Look a program up on the PATH; it may turn out missing."""
    packages = _PACKAGES.get(name, name)
    for prefix in ("arm-none-eabi-", "riscv64-unknown-elf-"):
        if name.startswith(prefix):
            packages = _PACKAGES[prefix]
    path = shutil.which(name)
    return Tool(name, packages, Path(path) if path else None)


def build_tools(target: Target) -> tuple[Tool, ...]:
    """Return the programs that building for a target needs."""
    prefix = target.toolchain.prefix
    return tuple(find_tool(name) for name in (f"{prefix}gcc", f"{prefix}objcopy", "make"))


def run_tools(target: Target) -> tuple[Tool, ...]:
    """Return the programs that running a target without a board needs."""
    return (find_tool(target.qemu.binary),) if target.qemu else ()
