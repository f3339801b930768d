"""UF2 files, the drive that takes them, and the boot loader's ways of saying no."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uf2_checker import read_uf2

from tinydeploy.errors import DeviceError
from tinydeploy.run.flash import uf2

RP2040 = 0xE48BFF56
INFO = "UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: RPI-RP2\r\n"


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.binary(min_size=1, max_size=1_500)), max_size=4)
)
def test_every_byte_arrives_where_it_belongs(pieces: list[tuple[int, bytes]]) -> None:
    expected: dict[int, int] = {}
    image, at = [], 0x10000000
    for gap, data in pieces:
        at += gap
        image.append((at, data))
        expected.update({at + i: byte for i, byte in enumerate(data)})
        at += len(data)
    if not image:
        return
    pages = read_uf2(uf2.to_uf2(image, RP2040), RP2040)
    written = {a + i: byte for a, page in pages.items() for i, byte in enumerate(page)}
    assert expected.items() <= written.items()
    assert all(written[a] == 0 for a in written.keys() - expected.keys())
    # Whole sectors of 4 kB, but for the end: what a boot loader erases, it also writes.
    last = max(pages)
    for sector in {a - a % 4096 for a in pages}:
        assert {a for a in range(sector, sector + 4096, 256) if a < last} <= pages.keys()


def test_a_known_file() -> None:
    block = uf2.to_uf2([(0x10000000, bytes(range(256)))], RP2040)
    words = [int.from_bytes(block[i : i + 4], "little") for i in range(0, 32, 4)]
    assert words == [0x0A324655, 0x9E5D5157, 0x2000, 0x10000000, 256, 0, 1, RP2040]
    assert block[32:288] == bytes(range(256)) and block[508:] == b"\x30\x6f\xb1\x0a"


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    place = tmp_path / "RPI RP2"
    place.mkdir()
    (place / "INFO_UF2.TXT").write_text(INFO)
    return place


def test_the_drive_that_goes_away_has_taken_the_file(drive: Path) -> None:
    def restart() -> None:
        deadline = time.monotonic() + 10
        while not (drive / "firmware.uf2").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        (drive / "INFO_UF2.TXT").unlink()

    board = threading.Thread(target=restart)
    board.start()
    uf2.copy(b"x" * 512, drive, patience=20)
    board.join()
    assert (drive / "firmware.uf2").read_bytes() == b"x" * 512


def test_a_drive_that_stays_has_not(drive: Path) -> None:
    with pytest.raises(DeviceError, match="did not take the file"):
        uf2.copy(b"x" * 512, drive, patience=0.2)


def test_drives_are_found_by_their_file(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = drive.parent / "stick"
    other.mkdir()
    monkeypatch.setattr(uf2, "_mounts", lambda: [other, drive])
    assert uf2.drives() == [drive]
    assert uf2.choose_drive(RP2040, None) == drive
    with pytest.raises(DeviceError, match=r"it is RPI-RP2, not RP2350"):
        uf2.choose_drive(0xE48BFF59, None)
    with pytest.raises(DeviceError, match="no UF2 drive"):
        uf2.choose_drive(RP2040, str(other))
    (other / "INFO_UF2.TXT").write_text(INFO)
    with pytest.raises(DeviceError, match="several"):
        uf2.choose_drive(RP2040, None)


def test_mounts_are_read_with_their_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /media/me/RPI\\040RP2 vfat rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, **_: table)
    monkeypatch.setattr(sys, "platform", "linux")
    assert uf2._mounts() == [Path("/media/me/RPI RP2")]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\0" * 4096])
def test_a_damaged_file_is_an_error(content: bytes, tmp_path: Path, drive: Path) -> None:
    (tmp_path / "firmware.elf").write_bytes(content)
    result = subprocess.run(
        [sys.executable, "-m", "tinydeploy.run.flash.uf2", "--family", hex(RP2040),
         "firmware.elf", str(drive)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "damaged" in result.stderr
    assert not (drive / "firmware.uf2").exists()
