"""The whole way: a model to firmware that runs in QEMU and equals the reference bit for bit."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import spawned, tinydeploy
from networks import break_softmax

from tinydeploy.targets import list_targets

pytestmark = pytest.mark.qemu

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
DIGITS_TEST = ROOT / "examples" / "digits" / "digits_test.npz"
MODELS = Path(os.environ.get("TINYDEPLOY_MODELS", ""))
NAMES = [
    *(f"mlperf_tiny/{n}_int8" for n in ("ad", "ic", "kws", "sww", "vww")),
    "mcunet/mcunet_vww", "mcunet/mcunet_detection", "tflm/person_detect",
    "tflm/micro_speech_quantized", "tflm/hello_world_int8",
]  # fmt: skip
CORES = ("mps2-an386", "riscv-virt")
SMALL_BOARDS = {"microbit", "hifive1", "stm32vldiscovery"}
RUNNABLE = [t.name for t in list_targets() if t.qemu or t.architecture == "host"]


def document(*arguments: object, code: int = 0) -> dict:
    return json.loads(tinydeploy(*arguments, "--json", code=code).stdout)


@pytest.mark.parametrize("target", RUNNABLE)
def test_example_on_every_target(target: str, small: Path) -> None:
    """Boards too small for the digits, layer by layer, refuse them; all run a smaller example."""
    if target in SMALL_BOARDS:
        tinydeploy("deploy", DIGITS, "--target", target, "--schedule", "layer", code=4)
    d = document("deploy", small, "--target", target)
    assert d["verify"]["bit_exact"] and d["verify"]["samples"] == 8
    run = d["profile_run"]
    assert run["total"] == sum(n["count"] for n in run["nodes"]) > 0
    assert run["unit"] == ("nanoseconds" if target == "host" else "instructions")
    memory = d["memory"]
    assert memory["fits"] and memory["stack_bytes"] > 0
    assert memory["ram_bytes"] > memory["arena_bytes"] >= memory["lower_bound_bytes"]
    assert memory["flash_bytes"] >= memory["code_bytes"] + memory["const_bytes"]


def test_instruction_counts_are_deterministic(small: Path) -> None:
    runs = [document("deploy", small, "--target", "riscv-virt", "--samples", 1) for _ in range(2)]
    assert runs[0]["profile_run"] == runs[1]["profile_run"]


@pytest.mark.parametrize("target", ["netduinoplus2", "mps3-an547", "riscv-virt"])
def test_code_runs_from_ram(target: str, small: Path) -> None:
    arguments = ["deploy", small, "--target", target, "--samples", 1]
    flash, ram = document(*arguments), document(*arguments, "--code-in-ram")
    assert ram["verify"]["bit_exact"]
    moved = ram["memory"]["code_in_ram_bytes"]
    assert flash["memory"]["code_in_ram_bytes"] == 0 < moved
    grown = ram["memory"]["ram_bytes"] - flash["memory"]["ram_bytes"]
    assert grown == moved >= ram["memory"]["model_code_bytes"]


def test_accuracy_on_the_device_is_the_reference_s() -> None:
    d = document(
        "deploy", DIGITS, "--target", "mps2-an386", "--inputs", DIGITS_TEST, "--samples", 40
    )
    assert d["verify"]["bit_exact"]
    assert d["accuracy"]["device"] == d["accuracy"]["reference"] > 0.9


def test_a_broken_kernel_is_caught_and_named(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tinydeploy("deploy", small, "--target", "mps2-an386", "--out", out)
    assert document("verify", out)["verify"]["bit_exact"]
    assert document("profile", out, "--runs", 3)["profile_run"]["total"] > 0
    break_softmax(out / "model" / "small_kernels.h")
    spawned("build", out)
    result = spawned("verify", out, "--json", code=7)
    document_ = json.loads(result.stdout)
    first = document_["verify"]["first_mismatch"]
    assert not document_["verify"]["bit_exact"]
    assert first["op"] == "SOFTMAX"
    assert first["got"] - first["expected"] == 1
    assert "first differing node" in result.stderr and first["tensor"] in result.stderr


def test_expected_outputs_of_another_runtime(tmp_path: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert")
    assert litert
    from tinydeploy.verify.litert import LiteRt

    data = np.load(DIGITS_TEST)["in0"][:5]
    runtime = LiteRt(DIGITS)
    outputs = np.stack([runtime.run([sample[None]])[0] for sample in data])
    np.savez(tmp_path / "in.npz", in0=data)
    np.savez(tmp_path / "out.npz", out0=outputs)
    arguments = ["deploy", DIGITS, "--target", "riscv-virt", "--inputs", tmp_path / "in.npz",
                 "--expect", tmp_path / "out.npz", "--schedule", "layer"]  # fmt: skip
    d = document(*arguments)
    assert d["verify"]["bit_exact"] and d["verify"]["oracle"] == "reference+expected"
    outputs[3, 0, 2] += 1
    np.savez(tmp_path / "out.npz", out0=outputs)
    result = tinydeploy(*arguments, "--json", code=7)
    first = json.loads(result.stdout)["verify"]["first_mismatch"]
    assert (first["sample"], first["node"], first["index"][-1]) == (3, None, 2)
    assert "expected file differs" in result.stderr


@pytest.mark.skipif(not MODELS.name, reason="TINYDEPLOY_MODELS is not set")
@pytest.mark.parametrize(
    ("name", "target"),
    [
        # Each runs on one core, and with --slow on the other.
        pytest.param(n, t, marks=[pytest.mark.slow] if (k + c) % 2 == 0 else [])
        for k, n in enumerate(NAMES)
        for c, t in enumerate(CORES)
    ],
)
def test_public_models(name: str, target: str) -> None:
    d = document("deploy", MODELS / f"{name}.tflite", "--target", target)
    assert d["verify"]["bit_exact"] and d["verify"]["samples"] == 8
    # Rings that may share bytes have no simple optimum: the bound can be below any placement.
    assert d["memory"]["arena_bytes"] <= 1.15 * d["memory"]["lower_bound_bytes"]


@pytest.mark.skipif(not MODELS.name, reason="TINYDEPLOY_MODELS is not set")
@pytest.mark.parametrize(("name", "limit"), [("kws", 10.0), ("vww", 20.0)])
def test_deploy_is_quick(name: str, limit: float) -> None:
    """The stages, on a machine that runs other tests at the same time, stay within the promise."""
    model = MODELS / "mlperf_tiny" / f"{name}_int8.tflite"
    stages = document("deploy", model, "--target", "mps2-an386")["stages"]
    assert sum(stage["seconds"] for stage in stages) < limit


@pytest.mark.parametrize(
    "target", ["mps2-an386", pytest.param("mps2-an505", marks=pytest.mark.slow), "riscv-virt"]
)
def test_streamed_schedule_on_the_device(target: str, tmp_path: Path) -> None:
    """Row by row: the same bits from much less memory, for few more instructions."""
    layers = ["--schedule", "layer", "--samples", 2]
    whole = document("deploy", DIGITS, "--target", target, *layers)
    out = tmp_path / "out"
    arguments = ["deploy", DIGITS, "--target", target, "--samples", 2, "--schedule", "streamed"]
    d = document(*arguments, "--out", out)
    assert d["verify"]["bit_exact"]
    assert d["memory"]["arena_bytes"] < 0.5 * whole["memory"]["arena_bytes"]
    assert d["profile_run"]["total"] <= 1.15 * whole["profile_run"]["total"]
    assert document("verify", out, "--samples", 1)["verify"]["bit_exact"]
    assert any(s["kind"] == "streamed" for s in d["plan"]["segments"])
