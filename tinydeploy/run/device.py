"""Turn calls into requests to a device."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tinydeploy.build.firmware import Firmware
from tinydeploy.errors import DeviceError, UsageError
from tinydeploy.run import protocol
from tinydeploy.run.exchange import MOST_REPEATS, Exchange, NoisyLineError
from tinydeploy.run.faults import locate
from tinydeploy.run.host import start_host
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.protocol import Hello, Span
from tinydeploy.run.qemu import Link, start_qemu
from tinydeploy.run.transport import Transport, open_port
from tinydeploy.targets import Target

Where = Literal["qemu", "host", "board"]
Unit = Literal["instructions", "cycles", "nanoseconds"]

_LEAST_CHUNK = 32  # bytes of data in a frame, on the worst of lines
_REPEATS_OF_LONG_FRAMES = 4
_SATURATED = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Hold the ticks of several invokes."""

    count: int
    least: int
    most: int
    total: int


class Device(Exchange):
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
        clock_hz: int | None = None,
    ) -> None:
        """Take over a transport.

        `timeout` is the longest silence to accept, in seconds; a device at work breaks it.
        `digest` is the model that must answer; `locate_address` names the function at a program
        counter; `clock_hz` is the core's clock, where a timer counts slower than it.
        """
        super().__init__(transport, timeout, process, locate_address)
        self._digest = digest
        self._unit: Unit = unit
        self._clock_hz = clock_hz
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
            self._chunk_bytes = hello.chunk_bytes
            self._hello = replace(
                hello,
                inputs=self._spans(0, hello.input_count),
                outputs=self._spans(1, hello.output_count),
            )
        return self._hello

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes into the arena."""

        def piece(start: int, count: int, most_repeats: int) -> bytes:
            payload = struct.pack("<I", offset + start) + data[start : start + count]
            return self._request(protocol.WRITE, payload, 0, (), most_repeats)

        self._in_pieces(len(data), 1, piece)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the arena."""

        def piece(start: int, count: int, most_repeats: int) -> bytes:
            payload = struct.pack("<II", offset + start, count)
            return self._request(protocol.READ, payload, count, (), most_repeats)

        return self._in_pieces(length, 1, piece)

    def _in_pieces(self, total: int, size: int, piece: Callable[[int, int, int], bytes]) -> bytes:
        """Transfer `total` items of `size` bytes in as large frames as the line lets through.

        A frame of n bytes passes a line that spoils a share p of them with probability (1-p)^n: one
        that was spoilt several times is halved. `piece` transfers (start, count, most attempts).
        """
        self.hello()
        done = bytearray()
        start = 0
        while start < total:
            count = max(1, min(self._chunk_bytes // size, total - start))
            halve = count * size > _LEAST_CHUNK
            try:
                done += piece(start, count, _REPEATS_OF_LONG_FRAMES if halve else MOST_REPEATS)
            except NoisyLineError:
                if not halve:
                    raise
                self._chunk_bytes = max(count * size // 2, _LEAST_CHUNK)
            else:
                start += count
        return bytes(done)

    def invoke(self, inputs: Sequence[bytes] = ()) -> list[int]:
        """Run all steps and return the ticks of each.

        `inputs` are those of a model that takes them while it runs; others have been written.
        """
        hello = self.hello()
        self._request(protocol.INVOKE, b"", 8, inputs)

        def piece(start: int, count: int, most_repeats: int) -> bytes:
            payload = struct.pack("<II", start, count)
            return self._request(protocol.COUNTERS, payload, 4 * count, (), most_repeats)

        answer = self._in_pieces(hello.step_count, 4, piece)
        ticks = list(struct.unpack(f"<{hello.step_count}I", answer))
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

        A board's timer counts at counter_hz, its core at clock_hz. Under `-icount shift=0` one
        instruction is one nanosecond of virtual time, so a timer's ticks are instructions at
        counter_hz / 1e9 each; mcycle counts them itself.
        """
        hello = self.hello()
        if hello.counter_kind != protocol.COUNTER_TIMER:
            return ticks
        if self._unit == "instructions":
            return round(ticks * 1_000_000_000 / hello.counter_hz)
        return round(ticks * (self._clock_hz or hello.counter_hz) / hello.counter_hz)

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
    (anything pyserial understands: /dev/ttyACM0, COM3, socket://, rfc2217://); "qemu" with a port
    says that an emulator is behind it. `link` is the emulator's: "uart" goes through the emulated
    UART, which is slower. `emulator_options` are added to its command line.
    Raises UsageError, ToolchainError or DeviceError.
    """
    process: ChildProcess | None = None
    transport: Transport
    unit: Unit
    if where == "board" and not port:
        raise UsageError("a board needs a port", hint="name it with --port")
    if port:
        transport = open_port(port, target.uart.baud)
        unit = "instructions" if where == "qemu" else unit_behind_port(target)
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
        clock_hz=target.clock_hz,
    )


def unit_behind_port(target: Target) -> Unit:
    """Return what a device behind a port counts: a machine that nobody sells is an emulator."""
    if target.architecture == "host":
        return "nanoseconds"
    return "cycles" if target.hardware else "instructions"


def _locator(elf: Path) -> Callable[[int], str]:
    return lambda address: locate(elf, address)
