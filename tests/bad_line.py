"""Put a line between a host and a device: a TCP port, an RFC 2217 server or a pseudo-terminal.

The line drops, flips, duplicates and delays bytes, breaks, falls silent or babbles, by a seed.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import select
import socket
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

from serial.rfc2217 import PortManager

from tinydeploy.errors import DeviceError
from tinydeploy.run.transport import Transport

Kind = Literal["socket", "rfc2217", "pty"]
_TURN = 0.02


@dataclass(frozen=True)
class Faults:
    """Say what the line does: `rate` is the share of bytes treated badly, times count bytes."""

    rate: float = 0.0
    seed: int = 0
    cut_after: int | None = None
    silent_after: int | None = None
    babble: bool = False


class _Way:
    """Spoil the bytes of one direction."""

    def __init__(self, faults: Faults, name: str) -> None:
        self.faults, self.random, self.passed = faults, random.Random(f"{name}{faults.seed}"), 0

    def spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.random.random() >= self.faults.rate:
                out.append(byte)
                continue
            match self.random.randrange(4):
                case 0:
                    out.append(byte ^ (1 << self.random.randrange(8)))
                case 1:
                    out += bytes([byte, byte])
                case 2:
                    time.sleep(0.002)
                    out.append(byte)
        self.passed += len(data)
        limit = self.faults.silent_after
        if limit is not None and self.passed > limit:
            return b""
        return bytes(out)

    @property
    def cut(self) -> bool:
        return self.faults.cut_after is not None and self.passed > self.faults.cut_after


class _Peer:
    """Send and receive at the host's end, whatever it is."""

    def __init__(self, receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
        self.receive, self.send = receive, send


@contextlib.contextmanager
def bad_line(device: Transport | None, faults: Faults, kind: Kind = "socket") -> Iterator[str]:
    """Yield the port at which a host finds a device, which may be missing."""
    stop = threading.Event()
    opened: list[Callable[[], None]] = []
    if kind == "pty":
        master, slave = pty.openpty()
        tty.setraw(slave)
        port = os.ttyname(slave)
        opened.append(lambda: os.close(slave))
        accept: Callable[[], Any] = partial(_pty_peer, master, opened)
    else:
        server = socket.create_server(("127.0.0.1", 0))
        port = f"{kind}://127.0.0.1:{server.getsockname()[1]}"
        opened.append(server.close)
        accept = partial(_socket_peer, server, kind, stop, opened)
    thread = threading.Thread(target=_serve, args=(accept, device, faults, stop, opened))
    thread.start()
    try:
        yield port
    finally:
        stop.set()
        thread.join(10)
        for close in opened:
            with contextlib.suppress(OSError):
                close()


def _pty_peer(master: int, opened: list[Callable[[], None]]) -> _Peer:
    opened.append(lambda: os.close(master))

    def receive() -> bytes:
        ready, _, _ = select.select([master], [], [], _TURN)
        return os.read(master, 4096) if ready else b""

    def send(data: bytes) -> None:
        while data:
            data = data[os.write(master, data) :]

    return _Peer(receive, send)


def _socket_peer(
    server: socket.socket, kind: Kind, stop: threading.Event, opened: list[Callable[[], None]]
) -> _Peer | None:
    server.settimeout(_TURN)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            peer, _ = server.accept()
            break
    else:
        return None
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.append(peer.close)

    def receive() -> bytes:
        ready, _, _ = select.select([peer], [], [], _TURN)
        data = peer.recv(4096) if ready else b"\0"
        if not data:
            raise OSError("the host hung up")
        return data if ready else b""

    if kind == "socket":
        return _Peer(receive, peer.sendall)
    lines = SimpleNamespace(
        baudrate=9600, bytesize=8, parity="N", stopbits=1, xonxoff=False, rtscts=False, dtr=False,
        rts=False, cts=True, dsr=True, ri=False, cd=True, break_condition=False,
        reset_input_buffer=lambda: None, reset_output_buffer=lambda: None,
    )  # fmt: skip
    guard = threading.Lock()

    def send(data: bytes) -> None:
        with guard:
            peer.sendall(data)

    manager = PortManager(lines, SimpleNamespace(write=send))
    return _Peer(
        lambda: b"".join(manager.filter(receive())),
        lambda data: send(b"".join(manager.escape(data))),
    )


def _serve(
    accept: Callable[[], _Peer | None],
    device: Transport | None,
    faults: Faults,
    stop: threading.Event,
    opened: list[Callable[[], None]],
) -> None:
    """Serve one host after the other."""
    ways = _Way(faults, "to device"), _Way(faults, "to host")
    while not stop.is_set():
        peer = accept()
        if peer is not None:
            _pass_on(peer, device, ways, stop)
        if any(way.cut for way in ways):
            while opened:
                opened.pop()()
            return


def _pass_on(
    peer: _Peer, device: Transport | None, ways: tuple[_Way, _Way], stop: threading.Event
) -> None:
    ended = threading.Event()

    def inward() -> None:
        with contextlib.suppress(DeviceError, OSError):
            while not ended.is_set() and device:
                peer.send(ways[1].spoil(device.read(_TURN)))

    def babble() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                peer.send(ways[1].random.randbytes(128))
                time.sleep(0.004)

    threads = [threading.Thread(target=inward)]
    if ways[0].faults.babble:
        threads.append(threading.Thread(target=babble))
    for thread in threads:
        thread.start()
    with contextlib.suppress(DeviceError, OSError):
        while not stop.is_set() and not any(way.cut for way in ways):
            data = ways[0].spoil(peer.receive())
            if data and device:
                device.write(data)
    ended.set()
    for thread in threads:
        thread.join(10)
