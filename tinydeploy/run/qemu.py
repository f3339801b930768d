"""Turn a firmware and a target into an emulated board behind a socket."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Literal

from tinydeploy.build.size import symbol_address
from tinydeploy.build.toolchain import find_tool
from tinydeploy.errors import ToolchainError, UsageError
from tinydeploy.run.process import ChildProcess
from tinydeploy.run.transport import PipeTransport, SocketTransport, Transport
from tinydeploy.targets import Target

Link = Literal["semihosting", "uart"]

_EMULATED = (0x746E7964, 0x79706564)  # TD_EMULATED_0, TD_EMULATED_1
_OLDEST_VERSION = (6, 0)  # the first with mps3-an547


def start_qemu(
    elf: Path, target: Target, link: Link = "semihosting", options: tuple[str, ...] = ()
) -> tuple[Transport, ChildProcess]:
    """Start the target's machine with its link in our hands.

    `link`: "semihosting" is fast, "uart" is what a board has; the frames are the same. `options`
    are added to the emulator's command line.

    The socket pair or pipes exist before QEMU does, so there is no port to race for and no
    connection to wait for. `-icount shift=0` makes one nanosecond of virtual time one instruction.
    Raises ToolchainError when QEMU is missing or too old, UsageError when the target has no
    emulator.
    """
    if target.qemu is None:
        raise UsageError(
            f"target {target.name} has no emulator",
            hint="run it on the board: --flash --port URL, or --port URL once it is flashed",
        )
    program = find_tool(target.qemu.binary).require()
    _check_version(target.qemu.binary)
    command = [
        str(program),
        *("-M", target.qemu.machine),
        *target.qemu.args,
        *("-icount", "shift=0"),
        *("-nographic", "-nodefaults", "-monitor", "none", "-nic", "none"),
        *("-kernel", str(elf)),
        *options,
    ]
    if link == "uart":
        return _start_on_socket(target.qemu.binary, command)
    return _start_on_pipes(target.qemu.binary, command, elf)


def _start_on_socket(name: str, command: list[str]) -> tuple[Transport, ChildProcess]:
    """Put the machine's first UART on a socket."""
    ours, theirs = socket.socketpair()
    serial = [
        *("-chardev", f"socket,id=td,fd={theirs.fileno()}"),
        *("-serial", "chardev:td"),
    ]
    try:
        process = ChildProcess(name, [*command, *serial], pass_fds=[theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return SocketTransport(ours), process


def _start_on_pipes(name: str, command: list[str], elf: Path) -> tuple[Transport, ChildProcess]:
    """Let the firmware reach the emulator's standard input and output by semihosting.

    The two words tell it so: firmware/drivers/link_board.c.
    """
    address = symbol_address(elf, "td_emulated")
    words = [
        option
        for index, word in enumerate(_EMULATED)
        for option in (
            "-device",
            f"loader,addr=0x{address + 4 * index:x},data=0x{word:x},data-len=4",
        )
    ]
    their_input, to_device = os.pipe()
    from_device, their_output = os.pipe()
    options = ["-serial", "none", "-semihosting-config", "enable=on,target=native", *words]
    transport = PipeTransport(from_device, to_device)
    try:
        process = ChildProcess(name, [*command, *options], stdin=their_input, stdout=their_output)
    except BaseException:
        transport.close()
        raise
    finally:
        os.close(their_input)
        os.close(their_output)
    return transport, process


@functools.cache
def _check_version(binary: str) -> None:
    version = find_tool(binary).version()
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_VERSION:
        raise ToolchainError(
            f"{binary} {version} is too old",
            f"version {'.'.join(map(str, _OLDEST_VERSION))} or later is needed",
        )
