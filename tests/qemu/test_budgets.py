"""Budgets of RAM met by public models, on the emulator: bit for bit, and hardly slower."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinydeploy.manifest import read_manifest

MODELS = os.environ.get("TINYDEPLOY_MODELS", "")
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set"),
]

SLOW = 1.04  # times the instructions of the plan layer by layer
TARGETS = ("mps2-an386", "riscv-virt")
WHOLE = (
    ("mlperf_tiny/vww_int8", 29_000),
    ("tflm/person_detect", 15_200),
    ("mcunet/mcunet_vww", 22_800),
    ("mcunet/mcunet_detection", 90_000),
    ("mlperf_tiny/ic_int8", 20_000),
    ("mlperf_tiny/kws_int8", 8_900),
    ("mlperf_tiny/sww_int8", 4_700),
)
STREAMED = (
    ("mlperf_tiny/vww_int8", 12_000, 9_200),
    ("tflm/person_detect", 14_800, 9_200),
    ("mcunet/mcunet_vww", 16_800, 12_600),
    ("mcunet/mcunet_detection", 38_000, 18_000),
)
DEFAULT = {("riscv-virt", "mlperf_tiny/kws_int8")}  # the only ones run without --slow


@pytest.mark.parametrize(
    ("target", "name", "budget"),
    [
        pytest.param(t, n, b, marks=[] if (t, n) in DEFAULT else pytest.mark.slow)
        for t in TARGETS
        for n, b in WHOLE
    ],
)
def test_whole_input(
    target: str, name: str, budget: int, tmp_path: Path, tinydeploy: Callable[..., Any]
) -> None:
    model, out = Path(MODELS) / f"{name}.tflite", tmp_path / "out"
    layers = tinydeploy("deploy", model, "-t", target, "--schedule", "layer")
    fitted = tinydeploy("deploy", model, "-t", target, "--ram", budget, "--out", out)
    assert fitted["verify"]["bit_exact"]
    assert fitted["memory"]["arena_bytes"] <= budget < layers["memory"]["arena_bytes"]
    assert fitted["profile_run"]["total"] <= SLOW * layers["profile_run"]["total"]
    more = fitted["memory"]["const_bytes"] / layers["memory"]["const_bytes"]
    stored = any("stored" in s.paces for s in read_manifest(out).segments)
    assert (more > 1.1) == stored
    again = tinydeploy("verify", out)  # the folder alone says how it was planned
    assert again["verify"]["bit_exact"]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("name", "once", "again"), STREAMED)
def test_streamed_input(
    target: str, name: str, once: int, again: int, tinydeploy: Callable[..., Any]
) -> None:
    """With every row computed once, and with up to 1.3 times the MACs."""
    model = Path(MODELS) / f"{name}.tflite"
    how = ("-t", target, "--schedule", "streamed", "--input", "streamed")
    for budget, more in ((once, ()), (again, ("--mac-factor", 1.3))):
        d = tinydeploy("deploy", model, *how, *more)
        assert d["verify"]["bit_exact"]
        assert d["memory"]["arena_bytes"] <= budget
