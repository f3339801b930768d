"""Turn a firmware into pyOCD's command line: https://pyocd.io/docs/command_reference."""

from __future__ import annotations

from tinydeploy.run.flash.base import ELF, Commands, Job, Runner, complaint
from tinydeploy.targets import Target


def _needs(target: Target) -> str:
    return "" if target.flash.pyocd else "the board file names no pyocd target"


def _commands(job: Job) -> Commands:
    """Do not wait for a probe to be plugged in: that would take forever."""
    choice = ["--uid", job.probe] if job.probe else []
    fixed = ["flash", "--no-config", "--no-wait", "--format", "elf"]
    return ([job.program, *fixed, "--target", job.target.flash.pyocd, *choice, ELF],)


RUNNER = Runner(
    "pyocd",
    lambda target: ("pyocd",),
    _needs,
    _commands,
    complaints=(
        complaint(
            r"target type \S+ not recognized",
            "pyOCD needs the chip's pack: 'pyocd pack install NAME', with the board file's name",
        ),
    ),
)
