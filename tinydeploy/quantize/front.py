"""Turn a studied network into trade-offs: what less flash or RAM costs, each measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.errors import FitError
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.measure import measure
from tinydeploy.quantize.mixed import Budget, Choice, Footprint, Machine, find
from tinydeploy.quantize.quantize import Quantized, Samples, Studied, store
from tinydeploy.quantize.sensitivity import Sensitivity, spread

# Of what 8 bits everywhere take.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)
_SAMPLES = 16  # for the figures of a front; what is written is measured on all


@dataclass(frozen=True, slots=True)
class Point:
    """Hold a choice of bits, what it takes, and what it costs in the integer reference.

    sqnr: of the worst output, in decibels. agreement: how often the largest output is at the same
    place as the float network's.
    """

    label: str
    choice: Choice
    footprint: Footprint
    sqnr: float
    agreement: float
    chosen: bool = False


def point(
    label: str,
    choice: Choice,
    quantized: Quantized,
    footprint: Footprint,
    samples: Samples,
    profile: IntegerProfile,
    chosen: bool = False,
) -> Point:
    """Return a choice with its loss, measured on some of the samples."""
    some = spread(samples, _SAMPLES)
    found = measure(quantized.floats, quantized.integers, some, profile)
    return Point(label, choice, footprint, min(found.outputs), found.agreement, chosen)


def trade_offs(
    studied: Studied,
    sensitivity: Sensitivity,
    machine: Machine,
    samples: Samples,
    profile: IntegerProfile,
    progress: Progress = quiet,
) -> list[Point]:
    """Return 8 bits everywhere, then ever less flash, then ever less RAM, until nothing is found.

    Shares of what 8 bits take (SHARES) are what is aimed at.
    """
    base = store(studied, {}, {})
    whole = machine.takes(base.model)
    found = [point("8 bits", Choice(), base, whole, samples, profile)]
    for kind in ("flash", "RAM"):
        for done, share in enumerate(SHARES):
            progress(done, len(SHARES))
            budget = Budget(flash=int(share * whole.flash))
            if kind == "RAM":
                budget = Budget(ram=int(share * whole.ram))
            try:
                choice, quantized, takes = find(studied, sensitivity, budget, machine)
            except FitError:
                break
            label = f"{kind} x {share:g}"
            found.append(point(label, choice, quantized, takes, samples, profile))
    return found


def undominated(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is as good as in all four figures, and better in one."""

    def figures(p: Point) -> tuple[float, ...]:
        return p.footprint.ram, p.footprint.flash, p.footprint.instructions, -p.sqnr

    def beaten(p: Point) -> bool:
        own = figures(p)
        return any(
            figures(q) != own and all(a <= b for a, b in zip(figures(q), own, strict=True))
            for q in points
        )

    return [p for p in points if p.chosen or not beaten(p)]
