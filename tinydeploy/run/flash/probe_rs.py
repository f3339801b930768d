"""Turn a firmware into probe-rs's command lines: https://probe.rs/docs/tools/probe-rs."""

from __future__ import annotations

import re

from tinydeploy.run.flash.base import ELF, Commands, Job, Runner
from tinydeploy.targets import Target


def _needs(target: Target) -> str:
    return "" if target.flash.probe_rs else "the board file names no probe-rs chip"


def _commands(job: Job) -> Commands:
    """Write, then start: 'download' leaves the core where it was, and 'run' does not end."""
    choice = ["--probe", job.probe] if job.probe else []
    which = ["--non-interactive", "--chip", job.target.flash.probe_rs, *choice]
    return (
        [job.program, "download", *which, "--verify", ELF],
        [job.program, "reset", *which],
    )


RUNNER = Runner(
    "probe-rs",
    lambda target: ("probe-rs",),
    _needs,
    _commands,
    probe=re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}(-[0-9])?(:[A-Za-z0-9._-]{1,80})?"),
    probe_words="VID:PID or VID:PID:SERIAL, as 'probe-rs list' shows it",
)
