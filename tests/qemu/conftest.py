"""Give tests the commands in this process, and a small network to deploy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import residual_network

from tinydeploy.cli.main import cli


@pytest.fixture
def tinydeploy(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in this process, which saves seconds, and return its document."""

    def run(*arguments: object, code: int = 0) -> Any:
        assert cli.main([*map(str, arguments), "--json"], standalone_mode=False) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(residual_network(size=16))
    return path
