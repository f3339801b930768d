"""Turn calls into requests to a device, repeated until an answer arrives or time is up."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tinydeploy.build.firmware import Firmware
from tinydeploy.errors import DeviceError, UsageError
from tinydeploy.run import protocol
from tinydeploy.run.faults import describe_fault, locate
from tinydeploy.run.host import start_host
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.protocol import Frame, FrameReader, Hello, Span, Want
from tinydeploy.run.qemu import Link, start_qemu
from tinydeploy.run.transport import SerialTransport, Transport
from tinydeploy.targets import Target

Where = Literal["qemu", "host", "board"]
Unit = Literal["instructions", "cycles", "nanoseconds"]

_FIRST_RETRY = 0.5  # seconds of silence before a request is sent again; doubles each time
_LONGEST_RETRY = 8.0
_MOST_REPEATS = 60
_LONGEST_RUN = 3_600.0
_SATURATED = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Hold the ticks of several invokes."""

    count: int
    least: int
    most: int
    total: int


class Device:
    """Speak the firmware's protocol over any transport; a context manager that lets go of it.

    All counts are in ticks of the device's counter: `to_unit` says what they mean.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 30.0,
        process: ChildProcess | None = None,
        digest: bytes | None = None,
        unit: Unit = "cycles",
        locate_address: Callable[[int], str] | None = None,
    ) -> None:
        """Take over a transport.

        `timeout` is the longest silence to accept, in seconds; a device at work breaks it.
        `digest` is the model that must answer; `locate_address` names the function at a program
        counter.
        """
        self._transport = transport
        self._timeout = timeout
        self._process = process
        self._digest = digest
        self._unit: Unit = unit
        self._locate = locate_address
        self._reader = FrameReader()
        self._waiting: list[Frame] = []
        self._sequence = random.randrange(0x10000)
        self._hello: Hello | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the port and end the emulator or process behind it."""
        self._transport.close()
        if self._process:
            self._process.stop()

    def hello(self) -> Hello:
        """Return who is there, asked once.

        Raises DeviceError for silence, another protocol version or another model.
        """
        if self._hello is None:
            answer = self._request(protocol.HELLO, bytes([protocol.VERSION]))
            hello = protocol.parse_hello(answer)
            if self._digest is not None and hello.digest != self._digest:
                raise DeviceError(
                    "the device runs another model",
                    f"its digest is {hello.digest.hex()}, expected {self._digest.hex()}",
                    "flash the firmware that was just built",
                )
            self._hello = replace(
                hello,
                inputs=self._spans(0, hello.input_count),
                outputs=self._spans(1, hello.output_count),
            )
        return self._hello

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes into the arena."""
        chunk = self.hello().chunk_bytes
        for start in range(0, len(data), chunk):
            head = struct.pack("<I", offset + start)
            self._request(protocol.WRITE, head + data[start : start + chunk], answer_bytes=0)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the arena."""
        chunk = self.hello().chunk_bytes
        out = bytearray()
        while len(out) < length:
            count = min(chunk, length - len(out))
            request = struct.pack("<II", offset + len(out), count)
            out += self._request(protocol.READ, request, answer_bytes=count)
        return bytes(out)

    def invoke(self, inputs: Sequence[bytes] = ()) -> list[int]:
        """Run all steps and return the ticks of each.

        `inputs` are those of a model that takes them while it runs; others have been written.
        """
        hello = self.hello()
        self._request(protocol.INVOKE, b"", 8, inputs)
        ticks: list[int] = []
        while len(ticks) < hello.step_count:
            count = min(hello.chunk_bytes // 4, hello.step_count - len(ticks))
            request = struct.pack("<II", len(ticks), count)
            answer = self._request(protocol.COUNTERS, request, answer_bytes=4 * count)
            ticks += struct.unpack(f"<{count}I", answer)
        if _SATURATED in ticks:
            raise DeviceError(
                f"step {ticks.index(_SATURATED)} ran too long to be counted",
                f"over {_SATURATED:,} ticks",
            )
        return ticks

    def step(self, index: int, inputs: Sequence[bytes] = ()) -> int:
        """Run one step on the arena as it is and return its ticks; inputs as for invoke."""
        self.hello()
        answer = self._request(protocol.STEP, struct.pack("<I", index), 8, inputs)
        return int.from_bytes(answer, "little")

    def bench(self, count: int, inputs: Sequence[bytes] = ()) -> Benchmark:
        """Run all steps `count` times and return the least, most and total ticks.

        Inputs as for invoke, the same in each run.
        """
        if not 1 <= count <= protocol.MOST_RUNS:
            raise UsageError(f"cannot run {count} times", f"1 to {protocol.MOST_RUNS} are possible")
        self.hello()
        answer = self._request(protocol.BENCH, struct.pack("<I", count), 24, inputs)
        return Benchmark(count, *struct.unpack("<QQQ", answer))

    def stack_used(self) -> int:
        """Return the deepest use of the stack since the device started, in bytes.

        Raises DeviceError when all of the reserve was used: it may have overflowed.
        """
        self.hello()
        used, reserved = struct.unpack("<II", self._request(protocol.STACK, b"", answer_bytes=8))
        if used >= reserved:
            raise DeviceError(
                "the stack overflowed or came close",
                f"{used:,} of {reserved:,} reserved bytes were used",
                "raise stack_bytes in the board file",
            )
        return int(used)

    @property
    def unit(self) -> Unit:
        """Return what `to_unit` counts in: it depends on where the device is."""
        return self._unit

    def to_unit(self, ticks: int) -> int:
        """Turn ticks into instructions (emulator), cycles (board) or nanoseconds (host).

        Under `-icount shift=0` one instruction is one nanosecond of virtual time, so a timer's
        ticks are instructions at counter_hz / 1e9 each; mcycle counts them itself.
        """
        hello = self.hello()
        if self._unit == "instructions" and hello.counter_kind == protocol.COUNTER_TIMER:
            return round(ticks * 1_000_000_000 / hello.counter_hz)
        return ticks

    def _spans(self, outputs: int, count: int) -> tuple[Span, ...]:
        spans: tuple[Span, ...] = ()
        while len(spans) < count:
            more = protocol.parse_spans(
                self._request(protocol.SPANS, struct.pack("<BH", outputs, len(spans)))
            )
            if not more:
                raise DeviceError("the device's tensor list is too short", f"{count} were promised")
            spans += more
        return spans

    def _request(
        self,
        kind: int,
        payload: bytes,
        answer_bytes: int | None = None,
        inputs: Sequence[bytes] = (),
    ) -> bytes:
        """Send a request until its answer arrives and return the answer's payload.

        Repeating is safe: the device runs nothing twice for one sequence number. Meanwhile, what
        the device wants of the inputs is sent; a want that was lost comes again for the request.
        """
        self._sequence = (self._sequence + 1) & 0xFFFF
        request = protocol.encode(Frame(kind, self._sequence, payload))
        started = heard = time.monotonic()
        retry = _FIRST_RETRY
        attempts = fed = 0
        while attempts < _MOST_REPEATS:
            attempts += 1
            self._send(request)
            patience = time.monotonic() + retry
            corrupt = self._reader.corrupt
            while True:
                now = time.monotonic()
                if now - heard > self._timeout or now - started > _LONGEST_RUN:
                    raise self._silence(now - heard)
                frame = self._next_frame(min(patience, heard + self._timeout) - now)
                if frame is None:
                    if self._reader.corrupt != corrupt:
                        break  # the answer was garbled: ask again at once
                    if time.monotonic() >= patience:
                        retry = min(2 * retry, _LONGEST_RETRY)
                        break
                    continue
                if frame.kind == protocol.ERROR:
                    if self._must_repeat(frame):
                        heard = time.monotonic()
                        break
                elif frame.sequence == self._sequence:
                    heard = time.monotonic()
                    patience = heard + max(retry, 2 * _FIRST_RETRY)
                    if frame.kind == kind | protocol.ANSWER:
                        return self._checked(frame.payload, answer_bytes)
                    if frame.kind == protocol.WANT:
                        want = protocol.parse_want(frame.payload)
                        self._feed(want, inputs)
                        attempts += 1
                        if want.number >= fed:  # else the same again
                            attempts, fed, retry = 0, want.number + 1, _FIRST_RETRY
                        if attempts >= _MOST_REPEATS:
                            break
        raise DeviceError(
            "the line to the device is too noisy",
            f"no answer to request {kind} after {_MOST_REPEATS} attempts, "
            f"{self._reader.corrupt} frames were corrupt",
            "check cable and line rate",
        )

    def _feed(self, want: Want, inputs: Sequence[bytes]) -> None:
        """Send the bytes of an input that the device asks for."""
        known = len(inputs[want.input]) if want.input < len(inputs) else 0
        chunk = self._hello.chunk_bytes if self._hello else 0
        if want.bytes > min(chunk, known) or want.at > known - want.bytes:
            raise DeviceError(
                "the device asks for input that it was not given",
                f"bytes {want.at:,} to {want.at + want.bytes:,} of {known:,} of input {want.input}",
                "" if inputs else "the inputs of this model are streamed: give them to each run",
            )
        data = inputs[want.input][want.at : want.at + want.bytes]
        payload = struct.pack("<I", want.number) + data
        self._send(protocol.encode(Frame(protocol.FEED, self._sequence, payload)))

    def _checked(self, payload: bytes, expected: int | None) -> bytes:
        if expected is not None and len(payload) != expected:
            raise DeviceError(
                "the device's answer has the wrong length",
                f"{len(payload)} bytes, expected {expected}",
            )
        return payload

    def _send(self, data: bytes) -> None:
        try:
            self._transport.write(data)
        except DeviceError as error:
            raise self._explained(error) from error

    def _next_frame(self, timeout: float) -> Frame | None:
        if not self._waiting:
            try:
                data = self._transport.read(timeout)
            except DeviceError as error:
                raise self._explained(error) from error
            self._waiting = self._reader.feed(data)
        return self._waiting.pop(0) if self._waiting else None

    def _must_repeat(self, frame: Frame) -> bool:
        """Return whether an error asks for the request again; raise when it is for us and final."""
        report = protocol.parse_error(frame.payload)
        if report.code == protocol.ERROR_CORRUPT:
            return True
        if report.code != protocol.ERROR_FAULT and frame.sequence != self._sequence:
            return False
        raise DeviceError(*describe_fault(report, self._locate))

    def _silence(self, seconds: float) -> DeviceError:
        ended = self._process.ended() if self._process else ""
        if self._process and ended:
            return DeviceError(f"{self._process.name} died", ended)
        noise = f", {self._reader.corrupt} corrupt frames" if self._reader.corrupt else ""
        return DeviceError(
            "the device is silent",
            f"no answer for {seconds:.1f} s{noise}",
            "is it powered, flashed with this firmware and on this port at this line rate?",
        )

    def _explained(self, error: DeviceError) -> DeviceError:
        """Return a closed link's cause: the end of the process behind it, where there is one."""
        ended = self._process.ended(wait=1.0) if self._process else ""
        if self._process and ended:
            return DeviceError(f"{self._process.name} died", ended)
        return error


def open_device(
    firmware: Firmware,
    target: Target,
    where: Where = "qemu",
    port: str | None = None,
    timeout: float = 30.0,
    link: Link = "semihosting",
    emulator_options: tuple[str, ...] = (),
) -> Device:
    """Start or reach the device that runs a firmware.

    `where`: "qemu" starts the target's emulator, "host" the native process, "board" opens `port`
    (anything pyserial understands: /dev/ttyACM0, COM3, socket://, rfc2217://). `link` is the
    emulator's: "uart" goes through the emulated UART, which is slower. `emulator_options` are
    added to its command line.
    Raises UsageError, ToolchainError or DeviceError.
    """
    process: ChildProcess | None = None
    transport: Transport
    unit: Unit
    if where == "board":
        if not port:
            raise UsageError("a board needs a port", hint="name it with --port")
        transport, unit = SerialTransport(port, target.uart.baud), "cycles"
    elif where == "host" or target.architecture == "host":
        if target.architecture != "host":
            raise UsageError(f"a firmware for {target.name} does not run on this computer")
        transport, process = start_host(firmware.elf)
        unit = "nanoseconds"
    else:
        transport, process = start_qemu(firmware.elf, target, link, emulator_options)
        unit = "instructions"
    return Device(
        transport,
        timeout=timeout,
        process=process,
        digest=firmware.digest,
        unit=unit,
        locate_address=_locator(firmware.elf),
    )


def _locator(elf: Path) -> Callable[[int], str]:
    return lambda address: locate(elf, address)
