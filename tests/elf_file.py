"""Make the smallest ELF file with something to load, for tests of what loads it."""

from __future__ import annotations

import struct
from pathlib import Path


def write_elf(path: Path, address: int, data: bytes) -> None:
    """Write a 32-bit little-endian ELF file with one segment at a physical address."""
    machine = 243  # EM_RISCV; nobody here looks at it
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, address, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    segment = struct.pack("<8I", 1, 84, address, address, len(data), len(data), 5, 4)
    path.write_bytes(head + segment + data)
