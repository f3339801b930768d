"""Turn a firmware built for this computer into a process behind a socket."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from tinydeploy.errors import DeviceError
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.transport import SocketTransport, Transport

_CONNECT_SECONDS = 10.0


def start_host(elf: Path) -> tuple[Transport, ChildProcess]:
    """Start the native firmware, which connects to a port that we listen on already.

    Raises DeviceError when it ends or does not connect in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        process = ChildProcess("the host firmware", [str(elf), str(server.getsockname()[1])])
        try:
            connected = _accept(server, process)
        except BaseException:
            process.stop()
            raise
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return SocketTransport(connected), process


def _accept(server: socket.socket, process: ChildProcess) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            return server.accept()[0]
        ended = process.ended()
        if ended:
            raise DeviceError("the host firmware died", ended)
    raise DeviceError("the host firmware did not connect", f"within {_CONNECT_SECONDS:.0f} s")
