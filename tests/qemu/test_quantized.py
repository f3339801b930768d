"""From a float network to firmware that equals the integer reference bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.qemu

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_float.tflite"
DIGITS_TEST = ROOT / "examples" / "digits" / "digits_test.npz"


def test_a_float_model_is_deployed_and_opened_again(
    tinydeploy: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    d = tinydeploy(
        "deploy", DIGITS, "-t", "mps2-an386", "--data", DIGITS_TEST, "--samples", 20, "-o", out
    )
    assert d["verify"]["bit_exact"] and d["memory"]["arena_bytes"] < 12_000
    assert d["accuracy"]["device"] == d["accuracy"]["reference"] >= d["accuracy"]["floats"] - 0.05
    again = tinydeploy("verify", out, "--data", DIGITS_TEST, "--samples", 4)
    assert again["verify"]["bit_exact"]


def test_without_samples_there_is_a_warning(tinydeploy: Callable[..., Any]) -> None:
    d = tinydeploy("deploy", DIGITS, "-t", "host")
    assert d["verify"]["bit_exact"] and "no samples" in d["warnings"][0]


@pytest.mark.parametrize(("bits", "target"), [(4, "mps2-an386"), (4, "riscv-virt"), (2, "host")])
def test_sub_byte_weights_are_exact_and_small(
    tinydeploy: Callable[..., Any], tmp_path: Path, bits: int, target: str
) -> None:
    path = tmp_path / "small.tdm"
    made = tinydeploy(
        "quantize", DIGITS, "--data", DIGITS_TEST, "--samples", 10, "--weights", bits, "-o", path
    )
    whole = tinydeploy(
        "quantize", DIGITS, "--data", DIGITS_TEST, "--samples", 2, "-o", tmp_path / "whole.tdm"
    )
    assert made["weights_bytes"] < 0.6 * whole["weights_bytes"]
    d = tinydeploy(
        "deploy", path, "-t", target, "--data", DIGITS_TEST, "--samples", 4, "--optimize", "size"
    )
    assert d["verify"]["bit_exact"]
