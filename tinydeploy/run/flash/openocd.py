"""Turn a firmware into OpenOCD's command line: https://openocd.org/doc/html/Flash-Programming.html."""

from __future__ import annotations

from tinydeploy.run.flash.base import ELF, Commands, Job, Runner
from tinydeploy.targets import Target


def _needs(target: Target) -> str:
    return "" if target.flash.openocd else "the board file names no openocd configuration"


def _commands(job: Job) -> Commands:
    choice = ["-c", f"adapter serial {job.probe}"] if job.probe else []
    work = ["-c", f"program {ELF} verify reset exit"]
    return ([job.program, "-f", job.target.flash.openocd, *choice, *work],)


RUNNER = Runner("openocd", lambda target: ("openocd",), _needs, _commands)
