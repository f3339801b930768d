"""Turn requests into frames of bytes and frames of bytes into answers (firmware/common/)."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass

from tinydeploy.errors import DeviceError

VERSION = 2
MOST_RUNS = 10_000  # of one BENCH
_LARGEST_FRAME = 65_536 + 16  # beyond this, bytes without a delimiter are noise

# Kinds of request; an answer's kind is the request's with ANSWER set.
HELLO, SPANS, WRITE, READ, INVOKE, COUNTERS, STEP, STACK, BENCH, FEED = range(1, 11)
ANSWER = 0x80
WANT = 0xFD
BUSY = 0xFE
ERROR = 0xFF

# Codes of an ERROR frame.
(
    ERROR_LENGTH,
    ERROR_BOUNDS,
    ERROR_UNKNOWN,
    ERROR_CORRUPT,
    ERROR_FAULT,
    ERROR_ARENA,
    ERROR_STEPS,
    ERROR_NOTHING,
    ERROR_STARVED,
    ERROR_STREAMED,
) = range(1, 11)

STREAMED = 0xFFFF_FFFF  # the offset of an input that is not in the arena

# Kinds of counter.
COUNTER_TIMER, COUNTER_CYCLES, COUNTER_NANOSECONDS = range(3)

_HEADER = struct.Struct("<BHH")
_CRC = struct.Struct("<I")
_HELLO = struct.Struct("<BBH16sIIIIIIB")
_ERROR = struct.Struct("<BIII")
_WANT = struct.Struct("<IIII")


@dataclass(frozen=True, slots=True)
class Frame:
    """Hold one message; the sequence number pairs an answer with its request."""

    kind: int
    sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Place a tensor within the arena; both in bytes.

    The offset of an input is STREAMED when the device asks for it while it runs.
    """

    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Hello:
    """Say who is at the other end of the line.

    `counter_hz` is ticks per second of the per-step counter; `chunk_bytes` the most data that one
    frame carries; `stack_bytes` the stack reserve.
    """

    version: int
    counter_kind: int
    chunk_bytes: int
    digest: bytes
    arena_bytes: int
    step_count: int
    input_count: int
    output_count: int
    counter_hz: int
    stack_bytes: int
    board: str
    inputs: tuple[Span, ...] = ()
    outputs: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Want:
    """Ask for `bytes` bytes of an input from its byte `at` on; `number` counts a run's wants."""

    number: int
    input: int
    at: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Hold a device's refusal: its code and three numbers of detail."""

    code: int
    detail: tuple[int, int, int]


def crc32(data: bytes) -> int:
    """Return the CRC-32/ISO-HDLC: polynomial 0x04C11DB7, reflected, all ones before and after."""
    return binascii.crc32(data)


def cobs_encode(data: bytes) -> bytes:
    """Return data without zero bytes.

    Source: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM ToN 7(2), 1999.
    """
    out = bytearray()
    runs = data.split(b"\0")
    for position, run in enumerate(runs):
        start = 0
        while len(run) - start >= 254:
            out.append(0xFF)
            out += run[start : start + 254]
            start += 254
        # A full block ends without a zero: only the very last run may stop there.
        if start < len(run) or start == 0 or position < len(runs) - 1:
            out.append(len(run) - start + 1)
            out += run[start:]
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    """Return the bytes that cobs_encode was given; raise ValueError for anything else."""
    out = bytearray()
    position = 0
    while position < len(data):
        code = data[position]
        block = data[position + 1 : position + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            raise ValueError("not a COBS block")
        out += block
        position += code
        if code != 0xFF and position < len(data):
            out.append(0)
    return bytes(out)


def encode(frame: Frame) -> bytes:
    """Return a frame as it goes on the line, between zero bytes."""
    body = _HEADER.pack(frame.kind, frame.sequence, len(frame.payload)) + frame.payload
    return b"\0" + cobs_encode(body + _CRC.pack(crc32(body))) + b"\0"


def decode(line: bytes) -> Frame | None:
    """Return the frame in the bytes between two zeros, or None when they are corrupt."""
    try:
        body = cobs_decode(line)
    except ValueError:
        return None
    if len(body) < _HEADER.size + _CRC.size:
        return None
    kind, sequence, length = _HEADER.unpack_from(body)
    (crc,) = _CRC.unpack_from(body, len(body) - _CRC.size)
    payload = body[_HEADER.size : -_CRC.size]
    if length != len(payload) or crc != crc32(body[: -_CRC.size]):
        return None
    return Frame(kind, sequence, payload)


class FrameReader:
    """Collect bytes of the line and give out the frames among them."""

    __slots__ = ("_buffer", "bytes", "corrupt", "good")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.bytes = 0  # that arrived so far
        self.corrupt = 0  # frames dropped so far
        self.good = 0  # frames given out so far

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that these bytes complete; corrupt ones are dropped and counted."""
        self._buffer += data
        self.bytes += len(data)
        *lines, rest = bytes(self._buffer).split(b"\0") if 0 in data else [self._buffer]
        self._buffer = bytearray(rest)
        if len(self._buffer) > _LARGEST_FRAME:
            self._buffer.clear()
            self.corrupt += 1
        frames = []
        for line in lines:
            if line:
                frame = decode(bytes(line))
                if frame is None:
                    self.corrupt += 1
                else:
                    frames.append(frame)
        self.good += len(frames)
        return frames


def parse_hello(payload: bytes) -> Hello:
    """Return the greeting without its spans; raise DeviceError when it is not one."""
    if payload and payload[0] != VERSION:
        raise DeviceError(
            "the device speaks another version of the protocol",
            f"it speaks version {payload[0]}, this tool version {VERSION}",
            "build and flash the firmware with this version of tinydeploy",
        )
    if len(payload) < _HELLO.size or len(payload) != _HELLO.size + payload[_HELLO.size - 1]:
        raise DeviceError("the device's greeting is malformed", f"{len(payload)} bytes")
    fields = _HELLO.unpack_from(payload)
    board = payload[_HELLO.size :].decode("ascii", "replace")
    hello = Hello(*(*fields[:-1], board))
    if not 1 <= hello.chunk_bytes <= 32_768 or hello.counter_hz == 0:
        raise DeviceError("the device's greeting is malformed", f"chunks of {hello.chunk_bytes}")
    return hello


def parse_spans(payload: bytes) -> tuple[Span, ...]:
    """Return the (offset, bytes) pairs of a SPANS answer."""
    if len(payload) % 8:
        raise DeviceError("the device's tensor list is malformed", f"{len(payload)} bytes")
    return tuple(Span(*pair) for pair in struct.iter_unpack("<II", payload))


def parse_want(payload: bytes) -> Want:
    """Return what a WANT frame asks for."""
    if len(payload) != _WANT.size:
        raise DeviceError("the device's wish for input is malformed", f"{len(payload)} bytes")
    return Want(*_WANT.unpack(payload))


def parse_error(payload: bytes) -> ErrorReport:
    """Return what an ERROR frame reports."""
    if len(payload) != _ERROR.size:
        raise DeviceError("the device's error report is malformed", f"{len(payload)} bytes")
    code, *detail = _ERROR.unpack(payload)
    return ErrorReport(code, (detail[0], detail[1], detail[2]))
