"""Networks that ask for their input while they run, deployed: the same bits and figures always."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from firmware_models import ARENA_BYTES, STREAMED_SOURCES
from networks import break_softmax

from tinydeploy.build.firmware import build_firmware
from tinydeploy.errors import DeviceError
from tinydeploy.manifest import read_manifest
from tinydeploy.run.device import Device, open_device
from tinydeploy.targets import load_target

pytestmark = pytest.mark.qemu

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_int8.tflite"


@pytest.mark.parametrize("target", ["mps2-an386", "riscv-virt"])
def test_example(target: str, tinydeploy: Callable[..., Any]) -> None:
    """Its layers run whole, so that its image is asked for as a whole."""
    d = tinydeploy("deploy", DIGITS, "-t", target, "--input", "streamed", "--schedule", "layer")
    assert d["verify"]["bit_exact"] and d["verify"]["samples"] == 8
    assert d["plan"]["input"] == "streamed"


@pytest.mark.parametrize("target", ["mps2-an386", "riscv-virt"])
def test_waiting_is_not_counted(
    target: str, small: Path, tmp_path: Path, tinydeploy: Callable[..., Any]
) -> None:
    """By the UART, rows take a hundred times longer."""
    out = tmp_path / "out"
    d = tinydeploy("deploy", small, "-t", target, "--input", "streamed", "--schedule", "streamed",
                   "--out", out)  # fmt: skip
    assert any(segment.feeds for segment in read_manifest(out).segments)
    again = tinydeploy("profile", out, "--runs", 2, "--link", "uart")
    assert again["plan"]["input"] == "streamed" and again["verify"]["bit_exact"]
    assert again["profile_run"]["total"] == d["profile_run"]["total"]
    for node, before in zip(again["profile_run"]["nodes"], d["profile_run"]["nodes"], strict=True):
        assert {key: node[key] for key in before} == before


@pytest.mark.parametrize("target", ["microbit", "host"])
def test_a_broken_kernel_is_caught_and_named(
    target: str, small: Path, tmp_path: Path, tinydeploy: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    d = tinydeploy("deploy", small, "-t", target, "--input", "streamed", "--schedule", "streamed",
                   "--out", out)  # fmt: skip
    assert d["verify"]["bit_exact"] and d["memory"]["stack_bytes"] > 0
    assert any(segment.feeds for segment in read_manifest(out).segments)
    break_softmax(out / "model" / "small_kernels.h")
    tinydeploy("build", out)
    first = tinydeploy("verify", out, "--samples", 2, code=7)["verify"]["first_mismatch"]
    assert (first["op"], first["got"] - first["expected"]) == ("SOFTMAX", 1)


@pytest.mark.parametrize("target", ["mps2-an386", "riscv-virt"])
def test_a_silent_host_ends_the_run(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = load_target(target)
    limit = ("-DTD_FEED_MILLISECONDS=50u",)  # of the emulator's time
    built = build_firmware(STREAMED_SOURCES, board, ARENA_BYTES, tmp_path, extra_flags=limit)
    monkeypatch.setattr(Device, "_feed", lambda self, want, inputs: None)
    with open_device(built, board, link="uart", timeout=120) as device:
        with pytest.raises(DeviceError, match=r"gave up waiting.*\nbytes 0 to 100 of input 0"):
            device.invoke()
        assert device.stack_used() > 0  # and the device goes on


def test_bench(small: Path, tinydeploy: Callable[..., Any]) -> None:
    (row,) = tinydeploy("bench", small, "-t", "mps2-an386", "--input", "streamed")
    assert row["exact"] and row["est. cycles"] > row["instructions"] > 0
