"""Turn a firmware into OpenOCD's command line: https://openocd.org/doc/html/Flash-Programming.html."""

from __future__ import annotations

from tinydeploy.run.flash.base import ELF, Commands, Job, Runner
from tinydeploy.targets import Target


def _needs(target: Target) -> str:
    return "" if target.flash.openocd else "the board file names no openocd configuration"


def configurations(target: Target) -> list[str]:
    """Return the configuration files: a board's, or a chip's behind the interface to reach it by.

    Chips alone are behind ST's probe where that is on the board, else behind a CMSIS-DAP probe.
    """
    name = target.flash.openocd
    if not name.startswith("target/"):
        return [name]
    stlink = any(port.startswith("0483:") for port in target.flash.usb)
    return ["interface/stlink.cfg" if stlink else "interface/cmsis-dap.cfg", name]


def _commands(job: Job) -> Commands:
    """Choose the probe first: some configurations open it."""
    files = [part for name in configurations(job.target) for part in ("-f", name)]
    choice = ["-c", f"adapter serial {job.probe}"] if job.probe else []
    work = ["-c", f"program {ELF} verify reset exit"]
    return ([job.program, *choice, *files, *work],)


RUNNER = Runner("openocd", lambda target: ("openocd",), _needs, _commands)
