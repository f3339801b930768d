"""Hold --optimize to what it says: size gives the smallest image of all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kernel_lab import Net
from numpy.random import default_rng

from tinydeploy.build.firmware import build_firmware
from tinydeploy.codegen import Provenance, generate
from tinydeploy.importers.tflite import read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.passes import run_passes
from tinydeploy.pipeline import compiler_level, core_of
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.select import select
from tinydeploy.targets import load_target

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits_int8.tflite"
LITERT = PROFILES["litert"]

pytestmark = pytest.mark.qemu


def network(bits: int) -> Graph:
    if bits == 0:
        return run_passes(read_file(DIGITS), LITERT)
    net = Net(default_rng(bits), bits=bits)
    x = net.conv(net.input(12, 12, 3), 16, (3, 3), 2)
    for stride in (1, 2):
        y = net.conv(net.depthwise(x, stride=stride), 16)
        x = net.plus(x, y) if stride == 1 else y
    net.output(net.dense(x, 24))
    return net.graph()


def flash_bytes(graph: Graph, target_name: str, optimize: str, folder: Path) -> int:
    target = load_target(target_name)
    selection = select(graph, LITERT, core_of(target, optimize))
    plan = plan_layers(graph, "greedy", selection, LITERT)
    generated = generate(graph, plan, LITERT, Provenance("m", "", target_name, ""))
    firmware = build_firmware(
        generated.sources, target, plan.arena_bytes, folder, optimisation=compiler_level(optimize)
    )
    return firmware.sizes.flash_bytes


COMPILERS = {"mps2-an386": "arm-none-eabi-gcc", "riscv-virt": "riscv64-unknown-elf-gcc"}
CHOSEN = {("mps2-an386", 0), ("riscv-virt", 4)}


@pytest.mark.parametrize(
    ("target", "bits"),
    [
        pytest.param(t, b, marks=[] if (t, b) in CHOSEN else [pytest.mark.slow])
        for t in COMPILERS
        for b in (0, 2, 4, 8)
    ],
)
def test_size_is_the_smallest(target: str, bits: int, tmp_path: Path) -> None:
    assert shutil.which(COMPILERS[target]), f"needs {COMPILERS[target]}"
    graph = network(bits)
    small, balanced, fast = (
        flash_bytes(graph, target, optimize, tmp_path / optimize)
        for optimize in ("size", "balanced", "speed")
    )
    assert small <= balanced
    assert small < fast
