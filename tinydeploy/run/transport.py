"""Turn a port's URL or a socket into a stream of bytes with timeouts."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Protocol

from tinydeploy.errors import DeviceError, UsageError

_READ_BYTES = 65_536
_SEND_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_TURN_SECONDS = 0.02
_PORTS_HINT = "see the ports of this computer with `tinydeploy ports`"


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
    """Carry bytes over a serial port that pyserial opens: /dev/tty*, COM*, rfc2217://."""

    __slots__ = ("_port", "_serial")

    def __init__(self, port: str, baud: int) -> None:
        """Open a port for this process alone; raises UsageError or DeviceError."""
        import serial

        # A time-out is set once: changing it would negotiate the line anew, over rfc2217.
        self._port = port
        try:
            self._serial = serial.serial_for_url(
                port,
                baudrate=baud,
                timeout=_TURN_SECONDS,
                write_timeout=None if "://" in port else _SEND_SECONDS,
                exclusive=True,
            )
        except OSError as error:
            raise _unopened(port, error) from error
        except ValueError as error:
            raise UsageError(f"{port[:200]!r} is no port", str(error), _PORTS_HINT) from error

    def read(self, timeout: float) -> bytes:
        """Return the bytes that have arrived, after at most `timeout` seconds; b"" if none have."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                data = bytes(self._serial.read(max(1, self._serial.in_waiting)))
                if data or time.monotonic() >= deadline:
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


def open_port(port: str, baud: int) -> Transport:
    """Open a port by its name or URL: /dev/tty*, COM*, socket://HOST:PORT, rfc2217://HOST:PORT.

    Raises UsageError for what is no port, DeviceError for one that is not there or in use.
    """
    if not port.startswith("socket://"):
        return SerialTransport(port, baud)
    host, _, number = port.removeprefix("socket://").rstrip("/").rpartition(":")
    if not host or not number.isdecimal() or not 0 < int(number) < 65_536:
        raise UsageError(f"{port[:200]!r} is no port", "it should be socket://HOST:PORT")
    try:
        connected = socket.create_connection((host.strip("[]"), int(number)), _CONNECT_SECONDS)
    except OSError as error:
        raise _unopened(port, error) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketTransport(connected)


def _unopened(port: str, error: OSError) -> DeviceError:
    """Return why a port could not be opened, in a sentence of its own for each usual reason."""
    if error.errno == errno.ENOENT:
        return DeviceError(f"there is no port {port}", "is the board plugged in?", _PORTS_HINT)
    if error.errno in (errno.EAGAIN, errno.EBUSY):
        return DeviceError(
            f"the port {port} is in use", "another program has it open",
            "close the serial monitor or the other run of tinydeploy",
        )  # fmt: skip
    if error.errno == errno.EACCES:
        return DeviceError(
            f"the port {port} may not be opened", str(error),
            "on Linux, join the group that owns it: sudo usermod -aG dialout $USER",
        )  # fmt: skip
    return DeviceError(f"cannot open the port {port}", str(error), _PORTS_HINT)
