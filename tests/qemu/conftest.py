"""Give tests the commands in this process, a small network to deploy and a built firmware."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from firmware_models import ARENA_BYTES, SOURCES
from networks import residual_network

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.cli.main import cli
from tinydeploy.targets import Target


@pytest.fixture
def tinydeploy(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in this process, which saves seconds, and return its document."""

    def run(*arguments: object, code: int = 0) -> Any:
        assert cli.main([*map(str, arguments), "--json"], standalone_mode=False) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture(scope="session")
def firmware_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Firmware]:
    """Build the hand-written model, once for all tests that change nothing in its folder."""
    built: dict[str, Firmware] = {}

    def build(target: Target) -> Firmware:
        if target.name not in built:
            folder = tmp_path_factory.mktemp(target.name)
            built[target.name] = build_firmware(SOURCES, target, ARENA_BYTES, folder)
        return built[target.name]

    return build


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.tflite"
    path.write_bytes(residual_network(size=16))
    return path
