"""Estimated instructions are near those counted, layer by layer and streamed."""

from pathlib import Path

import pytest

from tinydeploy import pipeline
from tinydeploy.plan.search import Schedule, Wanted
from tinydeploy.targets import load_target
from tinydeploy.verify.samples import random_samples

pytestmark = pytest.mark.qemu

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_int8.tflite"


@pytest.mark.parametrize("target_name", ["mps2-an386", "riscv-virt"])
def test_estimate_of_the_example(target_name: str, tmp_path: Path) -> None:
    target, clock = load_target(target_name), pipeline.Clock()
    core = pipeline.core_of(target, "balanced")
    estimated, counted = {}, {}
    schedules: tuple[Schedule, ...] = ("layer", "streamed", "auto")
    for schedule in schedules:
        prepared = pipeline.prepare(
            DIGITS, "litert", "greedy", clock, core, wanted=Wanted(schedule)
        )
        generated = pipeline.generate_sources(prepared, target, clock)
        firmware = pipeline.build(prepared, generated, target, tmp_path / "out", "-O2", clock)
        samples = random_samples(prepared.graph, 1)
        measured = pipeline.run(prepared, firmware, target, samples, clock)
        counted[schedule] = sum(measured.counts)
        (estimated[schedule],) = (c.instructions for c in prepared.front if c.plan == prepared.plan)
        assert estimated[schedule] == pytest.approx(counted[schedule], rel=0.15), schedule
    assert counted["auto"] <= 1.045 * counted["layer"]
