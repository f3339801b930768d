"""Turn a port's URL or a socket into a stream of bytes with timeouts."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Protocol

from tinydeploy.errors import DeviceError, UsageError

_READ_BYTES = 65_536
_SEND_SECONDS = 30.0


class Transport(Protocol):
    """Carry bytes to and from a device."""

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, after at most `timeout` seconds; b"" if none have.

        Raises DeviceError when the link has closed.
        """
        ...

    def write(self, data: bytes) -> None:
        """Send all bytes; raise DeviceError when the link has closed or takes none."""
        ...

    def close(self) -> None:
        """Let go of the link."""
        ...


class SocketTransport:
    """Carry bytes over a connected socket: an emulator or a process of this computer."""

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, after at most `timeout` seconds; b"" if none have."""
        self._socket.settimeout(max(timeout, 0.001))
        try:
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            return b""
        except OSError as error:
            raise DeviceError("the link to the device closed", str(error)) from error
        if not data:
            raise DeviceError("the link to the device closed", "the other end hung up")
        return data

    def write(self, data: bytes) -> None:
        """Send all bytes; raise DeviceError when the link has closed or takes none."""
        self._socket.settimeout(_SEND_SECONDS)
        try:
            self._socket.sendall(data)
        except OSError as error:  # TimeoutError among them
            raise DeviceError("the link to the device closed", str(error)) from error

    def close(self) -> None:
        """Let go of the link."""
        self._socket.close()


class PipeTransport:
    """Carry bytes over a pipe each way: an emulator's standard input and output."""

    __slots__ = ("_from_device", "_to_device")

    def __init__(self, from_device: int, to_device: int) -> None:
        """Take over two file descriptors of this process."""
        self._from_device = from_device
        self._to_device = to_device

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, after at most `timeout` seconds; b"" if none have."""
        try:
            ready, _, _ = select.select([self._from_device], [], [], max(timeout, 0.0))
            if not ready:
                return b""
            data = os.read(self._from_device, _READ_BYTES)
        except (OSError, ValueError) as error:
            raise DeviceError("the link to the device closed", str(error)) from error
        if not data:
            raise DeviceError("the link to the device closed", "the other end hung up")
        return data

    def write(self, data: bytes) -> None:
        """Send all bytes; raise DeviceError when the link has closed or takes none."""
        left = memoryview(data)
        try:
            while left:
                _, ready, _ = select.select([], [self._to_device], [], _SEND_SECONDS)
                if not ready:
                    raise DeviceError("the device takes no more bytes", f"for {_SEND_SECONDS} s")
                # At most this many fit for certain, so the call cannot block (POSIX, pipe).
                left = left[os.write(self._to_device, left[: select.PIPE_BUF]) :]
        except (OSError, ValueError) as error:
            raise DeviceError("the link to the device closed", str(error)) from error

    def close(self) -> None:
        """Let go of the link; safe to call twice."""
        for descriptor in (self._from_device, self._to_device):
            with contextlib.suppress(OSError):
                if descriptor >= 0:
                    os.close(descriptor)
        self._from_device = self._to_device = -1


class SerialTransport:
    """Carry bytes over anything that pyserial opens: /dev/tty*, COM*, socket://, rfc2217://."""

    __slots__ = ("_port", "_serial")

    def __init__(self, port: str, baud: int) -> None:
        import serial

        self._port = port
        try:
            self._serial = serial.serial_for_url(
                port, baudrate=baud, timeout=0, write_timeout=_SEND_SECONDS
            )
        except (OSError, ValueError) as error:
            raise UsageError(
                f"cannot open the port {port}",
                str(error),
                "see the ports of this computer with `tinydeploy ports`",
            ) from error

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, after at most `timeout` seconds; b"" if none have."""
        try:
            self._serial.timeout = max(timeout, 0.001)
            data = bytes(self._serial.read(1))
            if data:
                self._serial.timeout = 0
                with contextlib.suppress(BlockingIOError):
                    data += bytes(self._serial.read(_READ_BYTES))
            return data
        except OSError as error:
            raise DeviceError(f"the port {self._port} closed", str(error)) from error

    def write(self, data: bytes) -> None:
        """Send all bytes; raise DeviceError when the link has closed or takes none."""
        try:
            self._serial.write(data)
        except OSError as error:
            raise DeviceError(f"the port {self._port} closed", str(error)) from error

    def close(self) -> None:
        """Let go of the link."""
        with contextlib.suppress(OSError):
            self._serial.close()
