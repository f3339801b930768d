"""Describe the board that the hardware suite runs on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinydeploy import pipeline
from tinydeploy.build.firmware import Firmware
from tinydeploy.targets import Target


@dataclass(frozen=True)
class Board:
    """Hold what the board runs and where it is."""

    folder: Path
    prepared: pipeline.Prepared
    firmware: Firmware
    target: Target
    place: pipeline.Place
    runs: int
