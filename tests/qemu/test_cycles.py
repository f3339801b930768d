"""The estimate of cycles counts what the emulator executes and weighs it by class."""

import tempfile
from pathlib import Path

import pytest
from networks import residual_network

from tinydeploy import pipeline
from tinydeploy.run.cycles import can_estimate, cycles_of, estimate
from tinydeploy.targets import load_target
from tinydeploy.verify.samples import random_samples

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize(
    ("mnemonic", "operands", "previous", "core", "cycles"),
    [
        ("add", "r0, r1", "", "cortex-m4", 1),
        ("ldr", "r0, [r1]", "add", "cortex-m4", 2),
        ("ldrsb", "r0, [r1]", "ldr", "cortex-m4", 1),
        ("ldmia", "r0!, {r1, r2, r4-r6}", "", "cortex-m4", 6),
        ("push", "{r4-r11, lr}", "", "cortex-m3", 10),
        ("pop", "{r4, pc}", "", "cortex-m3", 5),
        ("bne", "40 <x>", "", "cortex-m4", 3),
        ("bic", "r0, r1", "", "cortex-m4", 1),
        ("bfi", "r0, r1, #1, #2", "", "cortex-m4", 1),
        ("mla", "r0, r1, r2, r3", "", "cortex-m3", 2),
        ("mla", "r0, r1, r2, r3", "", "cortex-m4", 1),
        ("smull", "r0, r1, r2, r3", "", "cortex-m3", 4),
    ],
)
def test_classes(mnemonic: str, operands: str, previous: str, core: str, cycles: int) -> None:
    assert cycles_of(mnemonic, operands, previous, core) == cycles


@pytest.mark.parametrize("name", ["mps2-an386", "mps2-an385"])
def test_instructions_of_the_plugin_are_those_of_the_timer(name: str) -> None:
    target = load_target(name)
    clock = pipeline.Clock()
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary) / "small.tflite"
        model.write_bytes(residual_network(size=24, channels=16))
        prepared = pipeline.prepare(model, "litert", "greedy", clock)
        generated = pipeline.generate_sources(prepared, target, clock)
        out = Path(temporary) / "out"
        firmware = pipeline.build(prepared, generated, target, out, "-O2", clock)
        samples = random_samples(prepared.graph, 1)
        measured = pipeline.run(prepared, firmware, target, samples, clock)

        def once(device: pipeline.Device) -> None:
            pipeline.write_inputs(device, prepared.graph, prepared.plan, samples.inputs[0])
            device.invoke()

        instructions, cycles = estimate(firmware, target, once)
    assert can_estimate(target)
    # The timer's tick is 40 instructions, and reading it costs some of its own.
    assert instructions == pytest.approx(sum(measured.counts), rel=0.01)
    assert instructions < cycles < 4 * instructions
