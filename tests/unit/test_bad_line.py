"""Over a bad line a transfer ends right, or in an error that says why; it is never wrong."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bad_line import Faults, Kind, bad_line
from firmware_models import DIGEST, INPUT, INVOKES, OUTPUT, STEPS

from tinydeploy.build.firmware import Firmware
from tinydeploy.errors import DeviceError, UsageError
from tinydeploy.run import exchange
from tinydeploy.run.device import Device
from tinydeploy.run.host import start_host
from tinydeploy.run.transport import open_port
from tinydeploy.targets import load_target

HOST = load_target("host")
KINDS: tuple[Kind, ...] = ("socket", "rfc2217", "pty")
FREE = 256  # from here on the model leaves the arena alone


@contextmanager
def over(
    firmware: Firmware,
    faults: Faults,
    kind: Kind = "socket",
    timeout: float = 10,
    digest: bytes = DIGEST,
) -> Iterator[Device]:
    """Yield the native firmware at the far end of a line."""
    transport, process = start_host(firmware.elf)
    try:
        with (
            bad_line(transport, faults, kind) as port,
            Device(open_port(port, 115_200), timeout=timeout, digest=digest) as device,
        ):
            yield device
    finally:
        process.stop()
        transport.close()


def exchange_all(device: Device, source: random.Random, rounds: int, bulk: int) -> None:
    """Move bulk data, run the model and compare every byte, `rounds` times."""
    device.write(INVOKES, bytes(4))
    for count in range(1, rounds + 1):
        block, data = source.randbytes(bulk), source.randbytes(INPUT[1])
        device.write(FREE, block)
        device.write(INPUT[0], data)
        assert len(device.invoke()) == STEPS
        assert device.read(*OUTPUT) == bytes((2 * byte + 1) & 255 for byte in data)
        assert device.read(FREE, bulk) == block
        # A request that was sent again must not have run again.
        assert struct.unpack("<I", device.read(INVOKES, 4)) == (count,)


@pytest.mark.parametrize("kind", KINDS)
def test_one_byte_in_a_hundred_is_spoilt(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.03)
    with over(firmware, Faults(0.01, seed=7), kind) as device:
        exchange_all(device, random.Random(kind), rounds=3, bulk=400)
        assert device._reader.corrupt > 10
        assert device._chunk_bytes < HOST.chunk_bytes  # frames shrank, or none would have passed


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_a_long_run_over_a_bad_line(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, kind: Kind, seed: int
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.03)
    with over(firmware, Faults(0.01, seed=seed), kind) as device:
        exchange_all(device, random.Random(seed), rounds=40, bulk=1_700)


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_line_carries_whole_frames(firmware: Firmware, kind: Kind) -> None:
    with over(firmware, Faults(), kind) as device:
        started = time.monotonic()
        exchange_all(device, random.Random(kind), rounds=5, bulk=1_700)
        assert time.monotonic() - started < 5
        assert device._chunk_bytes == HOST.chunk_bytes
        assert device._reader.corrupt == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_is_cut_amid_a_transfer(firmware: Firmware, kind: Kind) -> None:
    started = time.monotonic()
    with over(firmware, Faults(cut_after=2_500), kind, timeout=3) as device:
        with pytest.raises(DeviceError, match="closed"):
            exchange_all(device, random.Random(1), rounds=50, bulk=1_700)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_falls_silent(firmware: Firmware, kind: Kind) -> None:
    with over(firmware, Faults(silent_after=2_500), kind, timeout=0.6) as device:
        started = time.monotonic()
        with pytest.raises(DeviceError, match=r"silent\nno answer for 0\.\d s"):
            exchange_all(device, random.Random(1), rounds=50, bulk=1_700)
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_is_flooded_with_noise(firmware: Firmware, kind: Kind) -> None:
    """Right or an error: between the pieces of noise a small frame may get through."""
    with over(firmware, Faults(babble=True), kind, timeout=3) as device:
        started = time.monotonic()
        try:
            exchange_all(device, random.Random(1), rounds=1, bulk=100)
        except DeviceError as error:
            assert any(word in str(error) for word in ("noisy", "no sense", "silent"))
        assert time.monotonic() - started < 20


def test_the_firmware_of_another_model(firmware: Firmware) -> None:
    """Also where its greeting is spoilt at first."""
    told = pytest.raises(DeviceError, match=r"(?s)another model.*0102030405.*flash")
    with over(firmware, Faults(0.01, seed=2), digest=bytes(16)) as device, told:
        device.write(0, b"x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_line_rate_is_noise(kind: Kind) -> None:
    """A UART at another rate makes other bytes of what is sent, and never a frame."""

    class Garbling:
        def __init__(self) -> None:
            self.heard = bytearray()
            self.random = random.Random(3)

        def write(self, data: bytes) -> None:
            self.heard += self.random.randbytes(2 * len(data))

        def read(self, timeout: float) -> bytes:
            time.sleep(min(timeout, 0.005))
            data, self.heard = bytes(self.heard), bytearray()
            return data

        def close(self) -> None:
            pass

    told = pytest.raises(DeviceError, match=r"(?s)makes no sense.*not one whole.*line rate")
    with (
        bad_line(Garbling(), Faults(), kind) as port,
        Device(open_port(port, 9_600), timeout=1.5) as device,
        told,
    ):
        device.hello()


def test_a_board_in_use_and_one_that_is_gone(firmware: Firmware) -> None:
    with bad_line(None, Faults(), "pty") as port:
        first = open_port(port, 115_200)
        try:
            with pytest.raises(DeviceError, match=r"(?s)is in use.*another program.*close"):
                open_port(port, 115_200)
        finally:
            first.close()
        open_port(port, 115_200).close()
    with pytest.raises(DeviceError, match=r"(?s)there is no port.*plugged in"):
        open_port("/dev/ttyACM99", 115_200)


@pytest.mark.parametrize("kind", ["socket", "rfc2217"])
def test_nobody_listens(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(DeviceError, match="cannot open the port"):
        open_port(f"{kind}://127.0.0.1:{number}", 115_200)


def test_a_server_that_does_not_speak_rfc2217() -> None:
    with bad_line(None, Faults(), "socket") as port:
        started = time.monotonic()
        with pytest.raises(DeviceError, match="cannot open the port"):
            open_port(port.replace("socket", "rfc2217"), 115_200)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "port", ["socket://", "socket://x", "socket://x:0", "socket://x:99999", "foo://x:1"]
)
def test_what_is_no_port_is_wrong_usage(port: str) -> None:
    with pytest.raises(UsageError, match="is no port"):
        open_port(port, 115_200)


def test_nothing_is_left_behind() -> None:
    assert threading.active_count() < 10
