"""Give tests the hand-written model as a program of this computer."""

from __future__ import annotations

import pytest
from firmware_models import ARENA_BYTES, SOURCES

from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.targets import load_target


@pytest.fixture(scope="session")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """Build it with sanitizers that stop it."""
    folder = tmp_path_factory.mktemp("host")
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    return build_firmware(SOURCES, load_target("host"), ARENA_BYTES, folder, extra_flags=flags)
