"""Inputs that the device asks for while it runs: right over bad lines, an error over dead ones."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

import pytest
from firmware_models import ARENA_BYTES, FEEDS, STREAMED_SOURCES, streamed_output
from test_protocol_device import LossyTransport

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.errors import DeviceError
from tinydeploy.run import exchange, protocol
from tinydeploy.run.device import Device, open_device
from tinydeploy.run.host import start_host
from tinydeploy.run.protocol import Frame, FrameReader, encode
from tinydeploy.run.transport import Transport
from tinydeploy.targets import load_target

HOST = load_target("host")
LIMIT = 1.0  # seconds that the device waits for bytes, here


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    folder = tmp_path_factory.mktemp("host")
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all",
             f"-DTD_FEED_MILLISECONDS={int(1000 * LIMIT)}u")  # fmt: skip
    return build_firmware(STREAMED_SOURCES, HOST, ARENA_BYTES, folder, extra_flags=flags)


def inputs_of(seed: int) -> tuple[bytes, bytes]:
    source = random.Random(seed)
    return source.randbytes(5_000), source.randbytes(40)


def runs_of(device: Device) -> int:
    return int(struct.unpack("<I", device.read(FEEDS, 4))[0])


def test_inputs_arrive_while_the_model_runs(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        hello = device.hello()
        assert [span.offset for span in hello.inputs] == [protocol.STREAMED] * 2
        assert [span.bytes for span in hello.inputs] == [5_000, 40]
        for seed in range(3):
            inputs = inputs_of(seed)
            assert len(device.invoke(inputs)) == 2
            assert device.read(0, 64) == streamed_output(*inputs)
        before = runs_of(device)
        assert device.bench(4, inputs_of(9)).count == 4
        assert device.read(0, 64) == streamed_output(*inputs_of(9))
        device.step(0, inputs_of(5))
        device.step(1, inputs_of(5))
        assert device.read(0, 64) == streamed_output(*inputs_of(5))
        assert runs_of(device) == before + 5


def test_what_cannot_be_fed_is_a_sentence(firmware: Firmware) -> None:
    with open_device(firmware, HOST, "host") as device:
        with pytest.raises(DeviceError, match=r"(?s)refuses to have inputs written.*give them"):
            device.write(0, bytes(64))
        with pytest.raises(DeviceError, match=r"(?s)not given\nbytes 0 to 100 of 0.*streamed"):
            device.invoke()
    with open_device(firmware, HOST, "host") as device:
        long, short = inputs_of(0)
        with pytest.raises(DeviceError, match="not given\nbytes 10 to 40 of 39 of input 1"):
            device.invoke((long, short[:-1]))
        # The next request finds the device waiting for the rest; a greeting ends that.
        device._hello = None
        device.invoke((long, short))
        assert device.read(0, 64) == streamed_output(long, short)


@pytest.mark.parametrize("seed", range(6))
def test_a_lossy_line_gives_right_results(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.02)
    transport, process = start_host(firmware.elf)
    with Device(LossyTransport(transport, seed, 0.0004), process=process, timeout=10) as device:
        first = runs_of(device)
        for count in range(1, 6):
            inputs = inputs_of(100 * seed + count)
            device.invoke(inputs)
            assert device.read(0, 64) == streamed_output(*inputs)
            assert runs_of(device) == (first + count) & 0xFFFF_FFFF  # nothing ran twice


class Meddling:
    """Treat chosen frames of one kind badly, all others well."""

    def __init__(self, inner: Transport, kind: int, treat: Callable[[bytes], bytes]) -> None:
        self.inner, self.kind, self.treat = inner, kind, treat
        self.reader = {"read": FrameReader(), "write": FrameReader()}
        self.seen = 0

    def pass_on(self, way: str, data: bytes) -> bytes:
        out = b""
        for frame in self.reader[way].feed(data):
            line = encode(frame)
            if frame.kind == self.kind:
                self.seen += 1
                line = self.treat(line) if self.seen % 2 else line
            out += line
        return out

    def read(self, timeout: float) -> bytes:
        return self.pass_on("read", self.inner.read(timeout))

    def write(self, data: bytes) -> None:
        self.inner.write(self.pass_on("write", data))

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("kind", [protocol.WANT, protocol.FEED, protocol.INVOKE])
@pytest.mark.parametrize(
    "treat",
    [
        lambda line: b"",
        lambda line: line[:9] + bytes([line[9] ^ 1]) + line[10:],
        lambda line: line + line,
        lambda line: line[: len(line) // 2] + b"\0",
    ],
    ids=["dropped", "flipped", "twice", "cut"],
)
def test_every_second_frame_is_spoilt(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch, kind: int, treat: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.02)
    transport, process = start_host(firmware.elf)
    line = Meddling(transport, kind, treat)
    with Device(line, process=process, timeout=10) as device:
        first = runs_of(device)
        for seed in range(3):
            inputs = inputs_of(seed)
            device.invoke(inputs)
            assert device.read(0, 64) == streamed_output(*inputs)
        assert runs_of(device) == first + 3
    assert line.seen >= 3


def test_a_silent_host_ends_the_run(firmware: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_device(firmware, HOST, "host") as device:
        first = runs_of(device)
        with monkeypatch.context() as patch:
            patch.setattr(Device, "_feed", lambda self, want, inputs: None)
            started = time.monotonic()
            with pytest.raises(DeviceError, match=r"gave up waiting.*\nbytes 0 to 100 of input 0"):
                failed = device._sequence
                device.invoke(inputs_of(0))
            assert LIMIT <= time.monotonic() - started < 3 * LIMIT
        assert runs_of(device) == first + 1  # to the end of the step, on whatever was there
        device._sequence = failed
        with pytest.raises(DeviceError, match="gave up waiting"):
            device.invoke(inputs_of(0))  # the same request: the same answer, at once
        assert runs_of(device) == first + 1
        with pytest.raises(DeviceError, match="no counters yet"):
            device._request(protocol.COUNTERS, struct.pack("<II", 0, 1))
        device.invoke(inputs_of(1))
        assert device.read(0, 64) == streamed_output(*inputs_of(1))
        assert runs_of(device) == first + 2


def test_a_dead_line_of_feeds_is_an_error(
    firmware: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All FEEDs are lost, requests are not: one side or the other gives up."""
    monkeypatch.setattr(exchange, "_FIRST_RETRY", 0.02)
    transport, process = start_host(firmware.elf)

    class Deaf(Meddling):
        def pass_on(self, way: str, data: bytes) -> bytes:
            self.seen = 0
            return super().pass_on(way, data)

    with Device(Deaf(transport, protocol.FEED, lambda line: b""), process=process) as device:
        device.hello()
        with pytest.raises(DeviceError, match=r"gave up waiting|too noisy"):
            device.invoke(inputs_of(0))


def test_another_host_takes_over(firmware: Firmware) -> None:
    """A tool that was killed amid a run must not leave a device that answers nobody."""
    transport, process = start_host(firmware.elf)
    transport.write(encode(Frame(protocol.INVOKE, 7, b"")))
    reader, frames = FrameReader(), []
    while not frames:
        frames = reader.feed(transport.read(5))
    want = protocol.parse_want(frames[0].payload)
    assert (frames[0].kind, frames[0].sequence) == (protocol.WANT, 7)
    assert (want.number, want.input, want.at, want.bytes) == (0, 0, 0, 100)
    with Device(transport, process=process) as device:
        device.invoke(inputs_of(2))
        assert device.read(0, 64) == streamed_output(*inputs_of(2))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"short", "malformed"),
        (struct.pack("<IIII", 0, 2, 0, 1), "not given"),
        (struct.pack("<IIII", 0, 0, 2**32 - 1, 1), "not given"),
        (struct.pack("<IIII", 0, 0, 0, 2**32 - 1), "not given"),
        (struct.pack("<IIII", 0, 0, 0, 4_097), "not given"),
        (struct.pack("<IIII", 0, 0, 0, 16), "too noisy"),  # always the same, without end
    ],
)
def test_wishes_that_make_no_sense_are_refused(payload: bytes, message: str) -> None:
    greeting = struct.pack(
        "<BBH16sIIIIIIB", protocol.VERSION, 0, 4_096, bytes(16), 64, 1, 0, 0, 1_000, 64, 0
    )

    class Wishing:
        def __init__(self) -> None:
            self.line = b""

        def write(self, data: bytes) -> None:
            for frame in FrameReader().feed(data):
                answer = Frame(protocol.WANT, frame.sequence, payload)
                if frame.kind == protocol.HELLO:
                    answer = Frame(protocol.HELLO | protocol.ANSWER, frame.sequence, greeting)
                self.line += encode(answer)

        def read(self, timeout: float) -> bytes:
            line, self.line = self.line, b""
            return line

        def close(self) -> None:
            pass

    with Device(Wishing(), timeout=5) as device, pytest.raises(DeviceError, match=message):
        device.invoke((bytes(6_000), bytes(10)))
