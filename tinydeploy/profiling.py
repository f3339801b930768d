"""Turn a deployed network and a device into what each of its nodes costs, over many runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinydeploy import pipeline
from tinydeploy.build.firmware import Firmware
from tinydeploy.report.assemble import counted_parts
from tinydeploy.run.device import Device
from tinydeploy.targets import Target
from tinydeploy.verify.compare import verify, write_inputs
from tinydeploy.verify.samples import Samples

_TELL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Spread:
    """Hold the least, median and most of a count over all runs."""

    least: int
    median: int
    most: int


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """Count a step of the network: one node, or the nodes of a streamed segment together."""

    name: str
    op: str
    macs: int
    count: Spread


@dataclass(frozen=True, slots=True)
class Profile:
    """Hold counts in `unit`: instructions (emulator), cycles (board) or nanoseconds (process).

    `port` is where the device was; `model_sha256` identifies the model file; `clock_hz` is the
    core's; `stack_bytes` the deepest use of the stack.
    """

    target: str
    port: str
    model: str
    model_sha256: str
    unit: str
    clock_hz: int
    runs: int
    total: Spread
    nodes: tuple[NodeProfile, ...]
    stack_bytes: int

    def milliseconds(self, count: int) -> float | None:
        """Return how long a count takes; None where it is not of a board's cycles."""
        return 1_000 * count / self.clock_hz if self.unit == "cycles" else None


def measure(
    prepared: pipeline.Prepared,
    firmware: Firmware,
    target: Target,
    samples: Samples,
    runs: int,
    place: pipeline.Place,
    tell: Callable[[Profile], None] = lambda profile: None,
) -> tuple[pipeline.Measured, Profile]:
    """Verify one sample, then run it until it has run `runs` times; `tell` sees what is known.

    Raises DeviceError; what `tell` raises ends the measurement.
    """
    ticks: list[Sequence[int]] = []
    told = time.monotonic()
    with pipeline.device(firmware, target, place) as device:
        verdict = verify(device, prepared.graph, prepared.plan, prepared.profile, samples)
        ticks.append([device.to_unit(t) for t in verdict.counts])
        stack = device.stack_used()
        while len(ticks) < runs:
            if time.monotonic() - told > _TELL_SECONDS or len(ticks) == 1:
                tell(_profile(prepared, target, place, device, ticks, stack))
                told = time.monotonic()
            streamed = write_inputs(device, prepared.graph, prepared.plan, samples.inputs[0])
            ticks.append([device.to_unit(t) for t in device.invoke(streamed)])
        profile = _profile(prepared, target, place, device, ticks, device.stack_used())
    counts = tuple(node.count.median for node in profile.nodes)
    return pipeline.Measured(verdict, profile.unit, counts, profile.stack_bytes), profile


def _profile(
    prepared: pipeline.Prepared,
    target: Target,
    place: pipeline.Place,
    device: Device,
    ticks: Sequence[Sequence[int]],
    stack_bytes: int,
) -> Profile:
    """Summarise the ticks of each run and step."""
    parts = counted_parts(prepared.graph, prepared.plan)
    steps = list(zip(*ticks, strict=True))
    return Profile(
        target=target.name,
        port=place.port or place.where or ("host" if target.architecture == "host" else "qemu"),
        model=prepared.path.name,
        model_sha256=prepared.graph.source_sha256,
        unit=device.unit,
        clock_hz=target.clock_hz,
        runs=len(ticks),
        total=_spread([sum(run) for run in ticks]),
        nodes=tuple(
            NodeProfile(name, op, macs, _spread(step))
            for (name, op, macs), step in zip(parts, steps, strict=True)
        ),
        stack_bytes=stack_bytes,
    )


def _spread(counts: Sequence[int]) -> Spread:
    ordered = sorted(counts)
    return Spread(ordered[0], ordered[len(ordered) // 2], ordered[-1])
