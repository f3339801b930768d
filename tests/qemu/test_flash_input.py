"""Networks whose inputs lie in memory that is only read: never written, not in the arena, exact."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import Builder

from tinydeploy import pipeline
from tinydeploy.build.folder import load_firmware
from tinydeploy.errors import DeviceError, UsageError
from tinydeploy.plan.search import Wanted
from tinydeploy.plan.simulate import simulate
from tinydeploy.run.device import open_device

pytestmark = pytest.mark.qemu

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_int8.tflite"


@pytest.mark.parametrize("target", ["mps2-an386", "riscv-virt"])
@pytest.mark.parametrize("schedule", ["layer", "streamed"])
def test_a_run_leaves_the_input_as_it_is(
    target: str, schedule: str, small: Path, tmp_path: Path, tinydeploy: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    d = tinydeploy("deploy", small, "-t", target, "--input", "flash", "--schedule", schedule,
                   "--out", out, "--samples", 2)  # fmt: skip
    ram = tinydeploy("plan", small, "-t", target, "--schedule", schedule)
    image = d["memory"]["input_bytes"]
    assert d["verify"]["bit_exact"] and d["plan"]["input"] == "flash" and image == 16 * 16
    assert d["memory"]["arena_bytes"] < ram["memory"]["arena_bytes"] + image
    prepared, board, _ = pipeline.reopen(out, pipeline.Clock())
    plan, graph = prepared.plan, prepared.graph
    simulate(graph, plan, prepared.profile)
    at = plan.offset_of(graph.inputs[0])
    assert plan.input == "flash" and at >= plan.arena_bytes
    firmware = load_firmware(out, board)
    assert firmware.sizes.arena_bytes == plan.arena_bytes and firmware.sizes.input_bytes == image
    sent = np.random.default_rng(3).integers(0, 256, image).astype(np.uint8).tobytes()
    o = graph.outputs[0]
    with open_device(firmware, board) as device:
        device.write(at, sent)
        results = []
        for _ in range(2):
            device.invoke()
            results.append(device.read(plan.offset_of(o), graph.tensors[o].bytes))
        assert results[0] == results[1] and device.read(at, image) == sent
        with pytest.raises(DeviceError, match="outside of its memory"):
            device.read(at + 4, image)
        with pytest.raises(DeviceError, match="outside of its memory"):
            device.write(at - 4, sent[:8])  # in two memories
    again = tinydeploy("verify", out, "--samples", 1)
    assert again["verify"]["bit_exact"] and again["memory"]["arena_bytes"] == plan.arena_bytes


def test_an_output_that_is_an_input_cannot_be_there(tmp_path: Path) -> None:
    b = Builder()
    x, y = b.tensor((1, 2, 6)), b.tensor((1, 12))
    b.operator("RESHAPE", [x, b.constant([1, 12])], y)
    path = tmp_path / "view.tflite"
    path.write_bytes(b.build([x], [y]))
    wanted = Wanted(flash_input=True)
    with pytest.raises(UsageError, match="is part of an input"):
        pipeline.prepare(path, "litert", "greedy", pipeline.Clock(), wanted=wanted)
