"""Turn a firmware into picotool's command line: https://github.com/raspberrypi/picotool."""

from __future__ import annotations

from tinydeploy.run.flash.base import ELF, Commands, Job, Runner, complaint
from tinydeploy.targets import Target


def _needs(target: Target) -> str:
    return "" if target.flash.picotool else "the board has no RP2040 or RP2350"


def _commands(job: Job) -> Commands:
    choice = ["--ser", job.probe] if job.probe else []
    return ([job.program, "load", "--verify", "--execute", ELF, "-t", "elf", *choice],)


RUNNER = Runner(
    "picotool",
    lambda target: ("picotool",),
    _needs,
    _commands,
    probe_words="the board's serial number",
    complaints=(
        complaint(
            r"no accessible [\s\S]*(unable to connect|permission)",
            "this user may not open the board: install picotool's udev rules and plug it in again; "
            "see docs/flashing.md, 'Permissions'",
        ),
        complaint(
            r"no accessible",
            "no board is in BOOTSEL mode: hold its BOOTSEL button while you plug it in",
        ),
    ),
)
