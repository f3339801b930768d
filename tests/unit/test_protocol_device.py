"""The host's side against the native firmware, over good, bad and dead lines."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from firmware_models import ARENA_BYTES, CRASH, DIGEST, INPUT, INVOKES, OUTPUT, SOURCES, STEPS

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.errors import DeviceError, UsageError
from tinydeploy.run import exchange, protocol
from tinydeploy.run.device import Device, open_device
from tinydeploy.run.host import start_host
from tinydeploy.run.protocol import Frame, FrameReader, encode
from tinydeploy.run.transport import SocketTransport, Transport, open_port
from tinydeploy.targets import load_target

HOST = load_target("host")


def expected_output(data: bytes) -> bytes:
    return bytes((2 * byte + 1) & 255 for byte in data)


def test_host_runs_a_model(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        hello = device.hello()
        assert hello.board == "host"
        assert hello.digest == DIGEST == firmware.digest
        assert [(span.offset, span.bytes) for span in hello.inputs] == [INPUT]
        assert [(span.offset, span.bytes) for span in hello.outputs] == [OUTPUT]
        device.write(0, bytes(256))
        device.write(INPUT[0], bytes(range(64)))
        assert len(device.invoke()) == STEPS
        assert device.read(*OUTPUT) == expected_output(bytes(range(64)))
        assert device.unit == "nanoseconds"
        assert 1_000 < device.stack_used() < HOST.stack_bytes
        benchmark = device.bench(5)
        assert benchmark.least <= benchmark.total // 5 <= benchmark.most
        assert struct.unpack("<I", device.read(INVOKES, 4)) == (6,)


def test_one_step_touches_nothing_else(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        device.write(0, bytes(256))
        before = device.read(0, ARENA_BYTES)
        device.step(1)
        assert device.read(0, ARENA_BYTES) == before
        device.step(0)
        assert device.read(*OUTPUT) == expected_output(bytes(64))


@pytest.mark.parametrize(
    ("offset", "length"),
    [(ARENA_BYTES, 1), (ARENA_BYTES - 3, 4), (2**32 - 1, 1), (2**32 - 4, 8), (2**31, 4)],
)
def test_nothing_outside_of_the_arena_is_reached(
    firmware: Firmware, offset: int, length: int
) -> None:
    with open_device(firmware, HOST, "host") as device:
        with pytest.raises(DeviceError, match="outside of its memory"):
            device.write(offset, bytes(length))
        with pytest.raises(DeviceError, match="outside of its memory"):
            device.read(offset, length)
        device.write(ARENA_BYTES - 4, b"last")  # and the device is none the worse
        assert device.read(ARENA_BYTES - 4, 4) == b"last"


def test_requests_that_make_no_sense_are_refused(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        with pytest.raises(DeviceError, match=r"outside.*\n.*offset 4"):
            device.step(STEPS)
        with pytest.raises(DeviceError, match="no counters yet"):
            device._request(protocol.COUNTERS, struct.pack("<II", 0, 1))
        with pytest.raises(DeviceError, match="does not know requests of kind 77"):
            device._request(77, b"")
        with pytest.raises(DeviceError, match="expects 4 bytes and got 5"):
            device._request(protocol.STEP, bytes(5))
        with pytest.raises(DeviceError, match="10,000"):
            device._request(protocol.BENCH, b"\xff" * 4)
        with pytest.raises(UsageError, match="10000 are possible"):
            device.bench(10_001)


class LossyTransport:
    """Flip, drop and insert bytes in both directions, by a seeded random generator."""

    def __init__(self, inner: Transport, seed: int, rate: float) -> None:
        self.inner = inner
        self.random = random.Random(seed)
        self.rate = rate

    def spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.random.random() >= self.rate:
                out.append(byte)
                continue
            what = self.random.randrange(3)
            if what == 0:
                out.append(byte ^ (1 << self.random.randrange(8)))
            elif what == 1:
                out += bytes([byte, self.random.randrange(256)])
        return bytes(out)

    def read(self, timeout: float) -> bytes:
        return self.spoil(self.inner.read(timeout))

    def write(self, data: bytes) -> None:
        self.inner.write(self.spoil(data))

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_lossy_line_gives_right_results(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.02)
    transport, process = start_host(firmware.elf)
    source = random.Random(seed)
    with Device(LossyTransport(transport, seed, 0.002), process=process, timeout=10) as device:
        device.write(0, bytes(256))
        for count in range(1, 11):
            data = source.randbytes(64)
            device.write(INPUT[0], data)
            assert len(device.invoke()) == STEPS
            assert device.read(*OUTPUT) == expected_output(data)
            # A request that was sent again must not have run again.
            assert struct.unpack("<I", device.read(INVOKES, 4)) == (count,)
        assert device._reader.corrupt > 0 or seed != 0


def test_a_hopeless_line_is_an_error_in_bounded_time(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.01)
    transport, process = start_host(firmware.elf)
    started = time.monotonic()
    with Device(LossyTransport(transport, 1, 0.5), process=process, timeout=2) as device:
        with pytest.raises(DeviceError, match=r"silent|noisy|no sense"):
            device.write(0, bytes(1000))
        assert time.monotonic() - started < 10


def test_silence_is_an_error_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.05)
    ours, theirs = socket.socketpair()
    with theirs, Device(SocketTransport(ours), timeout=0.3) as device:
        with pytest.raises(DeviceError, match=r"silent\nno answer for 0\.[3-5]"):
            device.hello()
        asked = FrameReader().feed(theirs.recv(65_536))
    assert len(asked) >= 2  # it was asked again
    assert len({frame.sequence for frame in asked}) == 1


def test_a_line_that_closes_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with Device(SocketTransport(ours)) as device, pytest.raises(DeviceError, match="closed"):
        device.hello()


class Answering:
    """Answer each request by a function, as a device of one's own making."""

    def __init__(self, *answers: tuple[int, bytes] | bytes) -> None:
        self.answers = list(answers)
        self.line = b""

    def write(self, data: bytes) -> None:
        (request,) = FrameReader().feed(data)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, tuple):
                answer = encode(Frame(answer[0], request.sequence, answer[1]))
            self.line += answer

    def read(self, timeout: float) -> bytes:
        if not self.line:
            time.sleep(min(timeout, 0.01))
        line, self.line = self.line, b""
        return line

    def close(self) -> None:
        pass


def greeting(digest: bytes = DIGEST, version: int = protocol.VERSION) -> bytes:
    return struct.pack("<BBH16sIIIIIIB", version, 0, 256, digest, 64, 1, 0, 0, 1000, 64, 1) + b"x"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((0x81, greeting(version=9)), "version 9"),
        ((0x81, greeting(digest=bytes(16))), "another model"),
        ((0x81, greeting()[:-1]), "malformed"),
        ((0xFF, struct.pack("<BIII", 5, 3, 0x1234, 7)), "crashed.*\n.*hard fault at 0x00001234"),
        ((0xFF, struct.pack("<BIII", 5, 1, 0, 0)), "stack overflow"),
        ((0xFF, b"short"), "malformed"),
        ((0xFF, struct.pack("<BIII", 6, 9000, 8000, 0)), "arena is too small"),
    ],
)
def test_each_failure_has_its_own_sentence(answer: tuple[int, bytes], message: str) -> None:
    device = Device(Answering(answer), digest=DIGEST, timeout=1)
    with device, pytest.raises(DeviceError, match=message):
        device.hello()


def test_a_corrupt_answer_is_asked_for_again() -> None:
    nak = encode(Frame(protocol.ERROR, 0, struct.pack("<BIII", 4, 0, 0, 0)))
    line = Answering(b"\0\x09rubbish\0", nak, (0x81, greeting()))
    with Device(line, timeout=5) as device:
        started = time.monotonic()
        assert device.hello().board == "x"
        assert time.monotonic() - started < 0.4  # at once, not after the first silence


def test_a_device_at_work_is_not_silent() -> None:
    class Working(Answering):
        beats = 0

        def read(self, timeout: float) -> bytes:
            if self.beats < 6 and not self.line:
                self.beats += 1
                time.sleep(0.2)
                return encode(Frame(protocol.BUSY, device._sequence, bytes(4)))
            return super().read(timeout)

    line = Working((0x81, greeting()))
    with Device(line, timeout=0.5) as device:
        device.hello()
        line.beats = 0
        line.answers = []
        with pytest.raises(DeviceError, match="silent"):
            device.step(0)
        assert line.beats == 6  # 1.2 s of work, then silence


def test_late_answers_to_other_requests_are_ignored() -> None:
    stale = encode(Frame(0x81, 0, b"stale"))
    with Device(Answering(stale + stale, (0x81, greeting())), timeout=5) as device:
        device._sequence = 1000
        assert device.hello().board == "x"


@pytest.mark.parametrize("how", [1, 2])
def test_a_crash_names_the_signal(tmp_path: Path, how: int) -> None:
    # Without sanitizers, which would catch the signal first.
    plain = build_firmware(SOURCES, HOST, ARENA_BYTES, tmp_path)
    with open_device(plain, HOST, "host", timeout=10) as device:
        device.write(CRASH, bytes([how]))
        with pytest.raises(DeviceError, match=r"crashed\n.*signal \d"):
            device.step(3)


def test_a_process_that_dies_is_named(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        device.hello()
        assert device._process is not None
        device._process._process.kill()
        with pytest.raises(DeviceError, match="host firmware died\nkilled by signal 9"):
            device.read(0, 4)


def test_a_port_by_url_reaches_the_same_firmware(firmware: Firmware) -> None:
    transport, process = start_host(firmware.elf)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = open_port(f"socket://127.0.0.1:{server.getsockname()[1]}", 115_200)
        peer, _ = server.accept()
    with peer, Device(port, timeout=10, digest=DIGEST) as device:
        stop = _bridge(peer, transport)
        try:
            device.write(0, bytes(range(64)))
            assert device.read(0, 64) == bytes(range(64))
        finally:
            stop()
            process.stop()
            transport.close()


def _bridge(peer: socket.socket, transport: Transport) -> Callable[[], None]:
    import threading

    done = threading.Event()

    def outward() -> None:
        while not done.is_set():
            try:
                data = transport.read(0.05)
                if data:
                    peer.sendall(data)
            except (DeviceError, OSError):
                return

    def inward() -> None:
        peer.settimeout(0.05)
        while not done.is_set():
            try:
                transport.write(peer.recv(4096))
            except TimeoutError:
                continue
            except (DeviceError, OSError):
                return

    threads = [threading.Thread(target=work) for work in (outward, inward)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        done.set()
        for thread in threads:
            thread.join()

    return stop


def test_a_port_must_exist_and_be_named(firmware: Firmware) -> None:
    with pytest.raises(DeviceError, match="there is no port /dev/no-such-port"):
        open_device(firmware, HOST, "board", port="/dev/no-such-port")
    with pytest.raises(UsageError, match="needs a port"):
        open_device(firmware, HOST, "board")


def test_an_inference_is_marked_for_a_power_analyser(tmp_path: Path) -> None:
    """A board's own td_mark takes the place of the weak one; its calls come in pairs."""
    pin = (
        '#include "td_platform.h"\n'
        "void td_mark(bool running)\n{\n"
        "    td_arena[200] = running;\n"
        "    td_arena[201] = (uint8_t)(td_arena[201] + running);\n}\n"
    )
    marked = build_firmware({**SOURCES, "pin.c": pin.encode()}, HOST, ARENA_BYTES, tmp_path)
    with open_device(marked, HOST, "host") as device:
        device.write(0, bytes(256))
        device.invoke()
        device.step(0)  # a step alone is no inference
        assert device.read(200, 2) == b"\0\1"
        device.bench(5)
        assert device.read(200, 2) == b"\0\6"
