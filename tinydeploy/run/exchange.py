"""Turn a request into its answer over a line that loses, changes and invents bytes."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence

from tinydeploy.errors import DeviceError
from tinydeploy.run import protocol
from tinydeploy.run.faults import describe_fault
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.protocol import Frame, FrameReader, Want
from tinydeploy.run.transport import Transport

_FIRST_RETRY = 0.5  # seconds of silence before a request is sent again; doubles each time
_LONGEST_RETRY = 8.0
_LONGEST_PAUSE = 0.05  # seconds between a spoilt answer and the next attempt
MOST_REPEATS = 60
_LONGEST_RUN = 3_600.0


class NoisyLineError(DeviceError):
    """Report a request that was spoilt on its way too often."""


class Exchange:
    """Send requests and wait for their answers; `Device` says what they mean."""

    def __init__(
        self,
        transport: Transport,
        timeout: float,
        process: ChildProcess | None,
        locate_address: Callable[[int], str] | None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._process = process
        self._locate = locate_address
        self._reader = FrameReader()
        self._waiting: list[Frame] = []
        self._sequence = random.randrange(0x10000)
        self._chunk_bytes = 0  # the most data in one frame, once the device has said so

    def _request(
        self,
        kind: int,
        payload: bytes,
        answer_bytes: int | None = None,
        inputs: Sequence[bytes] = (),
        most_repeats: int = MOST_REPEATS,
    ) -> bytes:
        """Send a request until its answer arrives and return the answer's payload.

        Repeating is safe: the device runs nothing twice for one sequence number. Meanwhile, what
        the device wants of the inputs is sent; a want that was lost comes again for the request.
        Raises NoisyLineError after `most_repeats` attempts, DeviceError for anything else.
        """
        self._sequence = (self._sequence + 1) & 0xFFFF
        request = protocol.encode(Frame(kind, self._sequence, payload))
        started = heard = time.monotonic()
        retry = _FIRST_RETRY
        attempts = fed = 0
        while attempts < most_repeats:
            attempts += 1
            self._send(request)
            patience = time.monotonic() + retry
            spoilt = False
            while True:
                now = time.monotonic()
                if now - heard > self._timeout or now - started > _LONGEST_RUN:
                    raise self._silence(now - heard)
                if now >= patience:
                    retry = retry if spoilt else min(2 * retry, _LONGEST_RETRY)
                    break
                corrupt = self._reader.corrupt
                frame = self._next_frame(min(patience, heard + self._timeout) - now)
                again = self._reader.corrupt != corrupt
                if frame is not None and frame.kind == protocol.ERROR:
                    again = self._must_repeat(frame) or again
                    heard = time.monotonic()
                elif frame is not None and frame.sequence == self._sequence:
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
                        if attempts >= most_repeats:
                            break
                if again and not spoilt:
                    # Ask again soon, not at once: the answer to an earlier attempt may be on its
                    # way, and a line full of noise should not use up all attempts in no time.
                    spoilt = True
                    pause = min(0.001 * 2 ** min(attempts, 10), _LONGEST_PAUSE)
                    patience = min(patience, time.monotonic() + pause)
        raise self._noise(kind, attempts)

    def _feed(self, want: Want, inputs: Sequence[bytes]) -> None:
        """Send the bytes of an input that the device asks for."""
        known = len(inputs[want.input]) if want.input < len(inputs) else 0
        if want.bytes > min(self._chunk_bytes, known) or want.at > known - want.bytes:
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
        if self._reader.bytes and not self._reader.good:
            return self._babble()
        noise = f", {self._reader.corrupt} corrupt frames" if self._reader.corrupt else ""
        return DeviceError(
            "the device is silent",
            f"no answer for {seconds:.1f} s{noise}",
            "is it powered, flashed with this firmware and on this port at this line rate?",
        )

    def _noise(self, kind: int, attempts: int) -> NoisyLineError:
        if not self._reader.good:
            return self._babble()
        return NoisyLineError(
            "the line to the device is too noisy",
            f"no answer to request {kind} after {attempts} attempts, "
            f"{self._reader.corrupt} frames were corrupt",
            "check cable and line rate",
        )

    def _babble(self) -> NoisyLineError:
        return NoisyLineError(
            "what the device sends makes no sense",
            f"{self._reader.bytes:,} bytes arrived, not one whole frame among them",
            "is the line rate the one of the board file, and is it a firmware of tinydeploy's?",
        )

    def _explained(self, error: DeviceError) -> DeviceError:
        """Return a closed link's cause: the end of the process behind it, where there is one."""
        ended = self._process.ended(wait=1.0) if self._process else ""
        if self._process and ended:
            return DeviceError(f"{self._process.name} died", ended)
        return error
