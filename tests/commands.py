"""Run command lines as users do: in a process of their own, or in this one, which saves seconds."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from tinydeploy.cli.main import run

_SECONDS = 400
_ENVIRONMENT = {"COLUMNS": "100"}


def spawned(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which must end with `code`."""
    result = subprocess.run(
        [sys.executable, "-m", "tinydeploy", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=_SECONDS,
        env={**os.environ, **_ENVIRONMENT},
    )  # fmt: skip
    return _checked(result, code)


def tinydeploy(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command here, which must end with `code`."""
    given, out, err = [str(a) for a in arguments], io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, _ENVIRONMENT),
    ):
        try:
            run(given)
            ended = None
        except SystemExit as end:
            ended = end.code
    assert isinstance(ended, int), f"{given} did not exit with a code: {ended}"
    return _checked(subprocess.CompletedProcess(given, ended, out.getvalue(), err.getvalue()), code)


def _checked(
    result: subprocess.CompletedProcess[str], code: int
) -> subprocess.CompletedProcess[str]:
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result
