"""Turn an ELF file into what lies where in a board's flash."""

from __future__ import annotations

from pathlib import Path

from tinydeploy.errors import ToolchainError

_MOST_BYTES = 2**28


def load_image(elf: Path) -> list[tuple[int, bytes]]:
    """Return the (address, bytes) that a loader writes, lowest first.

    Addresses are the physical ones of the program headers: where initialised variables lie in
    flash. Raises ToolchainError for a damaged file.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with elf.open("rb") as file:
            found = [
                (segment["p_paddr"], segment.data())
                for segment in ELFFile(file).iter_segments("PT_LOAD")
                if 0 < segment["p_filesz"] <= _MOST_BYTES
            ]
    except (ELFError, OSError, ValueError, KeyError) as error:
        raise ToolchainError(f"{elf.name} is damaged", str(error)[:200]) from error
    if not found:
        raise ToolchainError(f"{elf.name} holds nothing to flash", "", "build it again")
    return sorted(found)
