"""Turn a firmware into a UF2 file on the drive of a board's boot loader.

The format is that of https://github.com/microsoft/uf2, "File format": blocks of 512 bytes, each
with 256 bytes of flash, its address and its number. Run as a program, it flashes a board:

python -m tinydeploy.run.flash.uf2 --family 0xe48bff56 firmware.elf [DRIVE]
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tinydeploy.errors import DeviceError, TinydeployError
from tinydeploy.run.flash.base import ELF, Commands, Job, Runner, complaint
from tinydeploy.run.flash.image import load_image
from tinydeploy.targets import Target

BLOCK_BYTES, PAGE_BYTES = 512, 256
MAGIC_START, MAGIC_SECOND, MAGIC_END = 0x0A324655, 0x9E5D5157, 0x0AB16F30
FAMILY_PRESENT = 0x0000_2000
_HEAD = struct.Struct("<8I")
# Boot loaders that erase whole sectors of 4 kB want all pages of a sector they touch: RP2040
# Datasheet, erratum RP2040-E14.
_SECTOR_BYTES = 4_096
INFO = "INFO_UF2.TXT"
# Families whose boot loader tells its board: RP2040 Datasheet 2.8.4, RP2350 Datasheet 5.5.
_BOARDS = {0xE48BFF56: "RPI-RP2", 0xE48BFF59: "RP2350", 0xE48BFF5A: "RP2350"}
_RESTART_SECONDS = 15.0


def to_uf2(image: Iterable[tuple[int, bytes]], family: int) -> bytes:
    """Return the UF2 file of (address, bytes) pieces; 0 as family leaves it out."""
    pages = _pages(image)
    flags = FAMILY_PRESENT if family else 0
    blocks = []
    for number, (address, data) in enumerate(sorted(pages.items())):
        head = _HEAD.pack(
            MAGIC_START, MAGIC_SECOND, flags, address, PAGE_BYTES, number, len(pages), family
        )
        padded = bytes(data).ljust(BLOCK_BYTES - _HEAD.size - 4, b"\0")
        blocks.append(head + padded + struct.pack("<I", MAGIC_END))
    return b"".join(blocks)


def _pages(image: Iterable[tuple[int, bytes]]) -> dict[int, bytearray]:
    """Return aligned pages by address, with zeros where a sector has nothing between them."""
    pages: dict[int, bytearray] = {}
    for start, data in image:
        for at in range(start - start % PAGE_BYTES, start + len(data), PAGE_BYTES):
            page = pages.setdefault(at, bytearray(PAGE_BYTES))
            first, last = max(at, start), min(at + PAGE_BYTES, start + len(data))
            page[first - at : last - at] = data[first - start : last - start]
    highest = max(pages, default=0)
    for sector in {at - at % _SECTOR_BYTES for at in pages}:
        for at in range(sector, min(sector + _SECTOR_BYTES, highest), PAGE_BYTES):
            pages.setdefault(at, bytearray(PAGE_BYTES))
    return pages


def drives() -> list[Path]:
    """Return the mounted drives of boot loaders: those with an INFO_UF2.TXT."""
    return [place for place in _mounts() if _info(place)]


def _mounts() -> list[Path]:
    if sys.platform == "win32":
        return [Path(f"{letter}:\\") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"]
    if sys.platform == "darwin":
        return sorted(Path("/Volumes").glob("*"))
    lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    # Spaces in names are written as \040: proc(5), fstab(5).
    names = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), x.split()[1]) for x in lines]
    return [Path(name) for name in names if name.startswith(("/media/", "/run/media/", "/mnt/"))]


def _info(drive: Path) -> str:
    try:
        with (drive / INFO).open("rb") as file:
            text = file.read(4_096).decode("ascii", "replace")
    except OSError:
        return ""
    return text if text.startswith("UF2 Bootloader") else ""


def choose_drive(family: int, wanted: str | None) -> Path:
    """Return the one drive of a boot loader; raises DeviceError for none, several or another's."""
    found = drives() if wanted is None else [Path(wanted)]
    if not found or not _info(found[0]):
        raise DeviceError(
            "no UF2 drive was found" + (f" at {wanted}" if wanted else ""),
            f"a board's boot loader shows itself as a drive with the file {INFO}",
        )
    if len(found) > 1:
        raise DeviceError("several UF2 drives were found", ", ".join(map(str, found)))
    board = re.search(r"^Board-ID:\s*(\S+)", _info(found[0]), re.MULTILINE)
    expected = _BOARDS.get(family)
    if board and expected and not board[1].startswith(expected):
        raise DeviceError(
            "unexpected chip behind the UF2 drive", f"it is {board[1][:40]}, not {expected}"
        )
    return found[0]


def copy(content: bytes, drive: Path, patience: float = _RESTART_SECONDS) -> None:
    """Write a UF2 file to a drive and wait, in seconds, until the board has taken it.

    A boot loader that has all blocks of its family restarts the board, and the drive goes away:
    that is its only answer. Raises DeviceError when the drive stays.
    """
    trouble = ""
    try:
        with (drive / "firmware.uf2").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # the board may restart before the file system is done
        trouble = error.strerror or str(error)
    ends = time.monotonic() + patience
    while _info(drive):
        if time.monotonic() > ends:
            raise DeviceError(
                "the board did not take the file",
                trouble or f"its drive {drive} was still there after {patience:.0f} s",
            )
        time.sleep(0.05)


def main(arguments: list[str] | None = None) -> int:
    """Flash the board whose drive is mounted; say what went wrong and return 1."""
    parser = argparse.ArgumentParser(prog="tinydeploy.run.flash.uf2")
    parser.add_argument("--family", type=lambda text: int(text, 0), required=True)
    parser.add_argument("elf", type=Path)
    parser.add_argument("drive", nargs="?")
    given = parser.parse_args(arguments)
    try:
        content = to_uf2(load_image(given.elf), given.family)
        drive = choose_drive(given.family, given.drive)
        copy(content, drive)
    except TinydeployError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(content) // BLOCK_BYTES} blocks written to {drive}; the board has restarted")
    return 0


def _needs(target: Target) -> str:
    return "" if target.flash.uf2_family else "the board's boot loader takes no UF2 files"


def _commands(job: Job) -> Commands:
    """Run this module as a program of its own: a drive that hangs can then be given up."""
    place = [job.probe] if job.probe else []
    family = f"0x{job.target.flash.uf2_family:08x}"
    return ([job.program, "-P", "-m", __spec__.name, "--family", family, ELF, *place],)


RUNNER = Runner(
    "uf2",
    lambda target: (sys.executable,),
    _needs,
    _commands,
    probe=re.compile(r"/[^\0]{0,300}|[A-Za-z]:[^\0]{0,300}"),
    probe_words="the folder where the board's drive is mounted",
    complaints=(
        complaint(
            r"no uf2 drive was found",
            "hold the board's BOOTSEL button while you plug it in; if no drive appears, mount it, "
            "or name its folder with --probe",
        ),
        complaint(r"several uf2 drives", "name the folder of one with --probe"),
        complaint(
            r"did not take the file",
            "is it the board of --target? plug it in again with BOOTSEL held, and try once more",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main())
