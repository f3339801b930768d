"""Deploy networks of int16 activations: the same bits on the device, run whole and streamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from networks import float_network

pytestmark = pytest.mark.qemu

TARGETS = ("mps2-an386", "riscv-virt")


def wide(model: Path, folder: Path, tinydeploy: Callable[..., Any]) -> Path:
    """Quantise a float model to int16 activations."""
    out = folder / "wide.tdm"
    tinydeploy("quantize", model, "--activations", "int16", "-o", out)
    return out


@pytest.mark.parametrize("target", TARGETS)
def test_small_network(target: str, tmp_path: Path, tinydeploy: Callable[..., Any]) -> None:
    model = tmp_path / "floats.tflite"
    model.write_bytes(float_network())
    found = tinydeploy("deploy", wide(model, tmp_path, tinydeploy), "-t", target)
    assert found["verify"]["bit_exact"] and found["verify"]["values"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", ["layer", "streamed"])
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_published_network(
    name: str, schedule: str, target: str, tmp_path: Path, tinydeploy: Callable[..., Any]
) -> None:
    folder = os.environ.get("TINYDEPLOY_MODELS")
    if folder is None:
        pytest.skip("TINYDEPLOY_MODELS names no folder of models")
    model = Path(folder) / "mlperf_tiny" / f"{name}_float.tflite"
    stored = wide(model, tmp_path, tinydeploy)
    found = tinydeploy("deploy", stored, "-t", target, "--schedule", schedule)
    assert found["verify"]["bit_exact"]
