"""Turn a command line into a child process that never outlives this one."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from tinydeploy.errors import ToolchainError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STDERR_TAIL = 2_000

_running: set[ChildProcess] = set()


class ChildProcess:
    """Run a program, keep what it writes to stderr, and kill it when told or when we end.

    On Linux "we" is the thread that started it (prctl(2), PR_SET_PDEATHSIG).
    """

    __slots__ = ("_errors", "_process", "name")

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=self._errors,
                pass_fds=tuple(pass_fds),
                preexec_fn=_die_with_parent(),
            )
        except OSError as error:
            self._errors.close()
            raise ToolchainError(f"{name} does not start", str(error)) from error
        _running.add(self)

    def ended(self, wait: float = 0.0) -> str:
        """Return how the process ended and its last words, or '' while it runs.

        A closed link often arrives a moment before the end: `wait` allows for that, in seconds.
        """
        try:
            code = self._process.wait(wait)
        except subprocess.TimeoutExpired:
            return ""
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        words = ""
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - _STDERR_TAIL))
            words = self._errors.read().decode(errors="replace").strip()
        return f"{how}: {words}" if words else how

    def stop(self) -> None:
        """Kill the process, which has nothing to save; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        _running.discard(self)


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child must call so that the kernel kills it when its parent is gone."""
    if not sys.platform.startswith("linux"):
        return None
    # Loaded here: after fork only the call itself may happen.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel


@atexit.register
def _stop_all() -> None:
    for process in list(_running):
        process.stop()
