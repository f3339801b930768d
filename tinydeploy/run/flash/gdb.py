"""Turn a firmware into gdb's command line: it loads through any gdb server, a probe's or QEMU's."""

from __future__ import annotations

import re

from tinydeploy.run.flash.base import ELF, SERVER, Commands, Job, Runner
from tinydeploy.targets import Target


def _programs(target: Target) -> tuple[str, ...]:
    return ("gdb-multiarch", f"{target.toolchain.prefix}gdb")


def _needs(target: Target) -> str:
    return "" if target.architecture != "host" else "a process of this computer needs no flashing"


def _commands(job: Job) -> Commands:
    """Load, read back and let go of the core, which then runs from the firmware's entry.

    Servers that know no 'reset halt' say so and nothing else happens. A Cortex-M takes its stack
    pointer from the vectors at reset only, so it is set here; RISC-V's start-up sets it itself.
    """
    steps = [
        "set confirm off",
        "set tcp connect-timeout 10",
        "set remotetimeout 30",
        f"target extended-remote {job.probe}",
        "monitor reset halt",
        "load",
        "compare-sections",
        "set $sp = (unsigned) &td_link_stack_top",
        "detach",
    ]
    arguments = [part for step in steps for part in ("-ex", step)]
    return ([job.program, "-nx", "-batch", *arguments, ELF],)


RUNNER = Runner(
    "gdb",
    _programs,
    _needs,
    _commands,
    probe=SERVER,
    probe_words="the HOST:PORT of a gdb server, such as localhost:3333",
    needs_probe=True,
    # gdb ends with exit code 0 when a command before the last one failed.
    failure=re.compile(r"MIS-MATCHED|Load failed|Error (writing|erasing|finishing)"),
    proof=re.compile(r"Transfer rate:[\s\S]*Section \.\w+[^\n]*: matched"),
)
