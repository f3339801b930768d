"""Turn a firmware and a target into a flashed board, by the board's own order of programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.errors import DeviceError, ToolchainError, UsageError
from tinydeploy.run.flash import esptool, gdb, openocd, picotool, probe_rs, pyocd, uf2
from tinydeploy.run.flash.base import ELF, PORT, Commands, Job, Runner
from tinydeploy.targets import Target

RUNNERS: dict[str, Runner] = {
    module.RUNNER.name: module.RUNNER
    for module in (probe_rs, pyocd, openocd, esptool, picotool, uf2, gdb)
}
SECONDS = 180.0
_LONGEST_OUTPUT = 200_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold the runner chosen for a board and its command lines, to run in `folder`."""

    runner: Runner
    commands: Commands
    folder: Path

    def lines(self) -> list[str]:
        """Return the command lines as a shell would take them."""
        return [f"cd {shlex.quote(str(self.folder))}", *map(shlex.join, self.commands)]


@dataclass(frozen=True, slots=True)
class Flashed:
    """Say which runner wrote the firmware, in how many seconds, and what it printed."""

    runner: str
    seconds: float
    output: str


def choose_runner(target: Target, runner: str | None = None, probe: str | None = None) -> Runner:
    """Choose the runner: the one named, else the first of the board's order that is installed.

    gdb comes last for every board: it needs but a server, named by `probe`. Raises UsageError
    where no runner suits, ToolchainError where those that do are not installed.
    """
    if runner is not None:
        chosen = RUNNERS[runner]
        if problem := chosen.unsuitable(target, probe):
            raise UsageError(f"{runner} cannot flash {target.name}", problem, _ask(target))
        chosen.tool(target).require()
        return chosen
    reasons, missing = [], []
    for name in dict.fromkeys((*target.flash.order, "gdb")):
        candidate = RUNNERS[name]
        if problem := candidate.unsuitable(target, probe):
            reasons.append(f"{name}: {problem}")
        elif candidate.tool(target).path is None:
            missing.append(candidate)
            reasons.append(f"{name}: not installed")
        else:
            return candidate
    what, why = f"nothing to flash {target.name} with", "; ".join(reasons)
    if missing:
        hints = [f"{r.name}: {r.tool(target).install}" for r in missing]
        raise ToolchainError(what, why, f"install one of them: {'; '.join(hints)}")
    raise UsageError(what, why, _ask(target))


def plan_flash(
    elf: Path,
    target: Target,
    runner: str | None = None,
    probe: str | None = None,
    port: str | None = None,
) -> Plan:
    """Return the command lines of the runner that `choose_runner` chooses.

    `port` is the board's UART: runners that flash through it take it where no probe is named.
    """
    chosen = choose_runner(target, runner, probe)
    if elf.name != ELF or not elf.is_file():
        raise UsageError(f"{elf} is no built firmware", f"a file named {ELF} is expected")
    if probe is None and port and chosen.probe is PORT and PORT.fullmatch(port):
        probe = port
    job = Job(elf, target, str(chosen.tool(target).require()), probe)
    return Plan(chosen, chosen.commands(job), elf.parent)


def _ask(target: Target) -> str:
    if target.flash.order:
        return f"its board file lists {', '.join(target.flash.order)}"
    if target.hardware:
        return "start a gdb server for its debug probe and name it: --probe HOST:PORT"
    return "it is an emulated machine: 'tinydeploy verify' runs the firmware without flashing"


def run_flash(plan: Plan, seconds: float = SECONDS) -> Flashed:
    """Run the command lines, all within a time limit in seconds.

    Raises DeviceError with the program's own words and what to try, ToolchainError when it does
    not start.
    """
    started = time.monotonic()
    said = []
    for command in plan.commands:
        left = seconds - (time.monotonic() - started)
        code, output = _run(command, plan.folder, left)
        said.append(output)
        if code is None:
            raise DeviceError(
                f"{plan.runner.name} did not finish",
                f"stopped after {seconds:g} s; it said: {plan.runner.gist(output)}",
                plan.runner.explain(output) if output.strip() else "--timeout gives it longer",
            )
        if code != 0 or plan.runner.failed(output):
            raise DeviceError(
                f"{plan.runner.name} could not flash the board (exit code {code})",
                plan.runner.gist(output),
                plan.runner.explain(output),
            )
    return Flashed(plan.runner.name, time.monotonic() - started, "".join(said))


def _run(command: list[str], folder: Path, seconds: float) -> tuple[int | None, str]:
    """Return the exit code, None when time was up, and the output of a program.

    It writes to a file, not a pipe, and is the head of a process group: a child that it leaves
    behind can neither keep us waiting nor outlive the time limit.
    """
    with tempfile.TemporaryFile() as file:
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ToolchainError(f"{Path(command[0]).name} does not start", str(error)) from error
        code: int | None
        try:
            code = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_OUTPUT))
        return code, file.read().decode(errors="replace").replace("\r", "\n")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a program and its children."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass  # all have ended
    process.wait()
