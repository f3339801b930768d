"""Turn a firmware and a target into an emulated board behind a socket."""

from __future__ import annotations

import functools
import socket
from pathlib import Path

from tinydeploy.build.toolchain import find_tool
from tinydeploy.errors import ToolchainError, UsageError
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.transport import SocketTransport, Transport
from tinydeploy.targets import Target

_OLDEST_VERSION = (6, 0)  # the first with mps3-an547


def start_qemu(elf: Path, target: Target) -> tuple[Transport, ChildProcess]:
    """Start the target's machine with its first UART on a socket of ours.

    The socket pair exists before QEMU does, so there is no port to race for and no connection to
    wait for. `-icount shift=0` makes one nanosecond of virtual time one instruction.
    Raises ToolchainError when QEMU is missing or too old, UsageError when the target has no
    emulator.
    """
    if target.qemu is None:
        raise UsageError(
            f"target {target.name} has no emulator", hint="use --where host or --where board"
        )
    program = find_tool(target.qemu.binary).require()
    _check_version(target.qemu.binary)
    ours, theirs = socket.socketpair()
    command = [
        str(program),
        *("-M", target.qemu.machine),
        *target.qemu.args,
        *("-icount", "shift=0"),
        *("-nographic", "-nodefaults", "-monitor", "none", "-nic", "none"),
        *("-chardev", f"socket,id=td,fd={theirs.fileno()}", "-serial", "chardev:td"),
        *("-kernel", str(elf)),
    ]
    try:
        process = ChildProcess(target.qemu.binary, command, pass_fds=[theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return SocketTransport(ours), process


@functools.cache
def _check_version(binary: str) -> None:
    version = find_tool(binary).version()
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_VERSION:
        raise ToolchainError(
            f"{binary} {version} is too old",
            f"version {'.'.join(map(str, _OLDEST_VERSION))} or later is needed",
        )
