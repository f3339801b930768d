"""Turn a deployment folder back into a Firmware: as it was built, or built again by make."""

from __future__ import annotations

from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tinydeploy.build.firmware import Firmware, run_make
from tinydeploy.build.size import measure, read_digest
from tinydeploy.build.toolchain import build_tools
from tinydeploy.errors import ToolchainError, UsageError
from tinydeploy.targets import Target


def load_firmware(folder: Path, target: Target) -> Firmware:
    """Return the firmware that a folder holds.

    Raises UsageError when it was not built, ToolchainError when the file is damaged.
    """
    elf = folder / "firmware.elf"
    if not elf.is_file():
        raise UsageError(
            f"{folder} holds no built firmware", "", f"run 'tinydeploy build {folder}' first"
        )
    objects = tuple(sorted((folder / "build" / "model").glob("*.o")))
    return Firmware(elf.resolve(), target.name, read_digest(elf), measure(elf, target, objects))


def rebuild(folder: Path, target: Target) -> Firmware:
    """Run make on the sources as they are now; raises FitError or ToolchainError."""
    if not (folder / "Makefile").is_file():
        raise UsageError(f"{folder} has no Makefile", "", "deploy into it again")
    for tool in build_tools(target):
        tool.require()
    run_make(folder, target)
    return load_firmware(folder, target)


def read_compiler(folder: Path) -> str:
    """Return what the compiler left of itself in a folder's objects: "GCC: (GNU) 12.2.1"; or ''.

    Raises ToolchainError when an object is damaged.
    """
    for path in sorted((folder / "build" / "model").glob("*.o")):
        try:
            with path.open("rb") as file:
                section = ELFFile(file).get_section_by_name(".comment")
                text = section.data().strip(b"\0").split(b"\0")[0] if section else b""
        except (OSError, ELFError) as error:
            raise ToolchainError(f"cannot read {path}", str(error)) from error
        if text:
            return str(text.decode("ascii", "replace"))
    return ""
