"""Find bits that hold the budgets of a quantize command, and what other choices would cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold the options of options.budgeting."""

    target: str | None
    flash: int | None
    ram: int | None
    input_from: str
    optimize: str
    front: bool
    compare: bool

    @property
    def anything(self) -> bool:
        """Tell whether bits are to be chosen at all."""
        return self.front or self.compare or self.flash is not None or self.ram is not None


def within(
    graph: Any, samples: Any, settings: Any, asked: Asked, profile: str, progress: Progress
) -> tuple[Any, Any]:
    """Return the network quantised within the budgets, and the document of the choices.

    Raises UsageError without a target, FitError where nothing holds the budgets.
    """
    from tinydeploy.errors import UsageError
    from tinydeploy.footprint import Machine
    from tinydeploy.ir import DType
    from tinydeploy.numerics.profile import profile_named
    from tinydeploy.pipeline import core_of
    from tinydeploy.plan.search import Wanted
    from tinydeploy.quantize.front import point, trade_offs, undominated
    from tinydeploy.quantize.mixed import Budget, find
    from tinydeploy.quantize.quantize import study
    from tinydeploy.quantize.quantmcu import quantmcu
    from tinydeploy.quantize.sensitivity import measure_sensitivity
    from tinydeploy.report.mixed import MixedDocument, front_rows, patch_row
    from tinydeploy.targets import load_target

    if asked.target is None:
        raise UsageError(
            "a budget is of a target", "what weights and activations take depends on its kernels",
            "add --target; 'tinydeploy targets' lists them",
        )  # fmt: skip
    if settings.activations is not DType.INT8 or settings.weight_bits != 8 or settings.node_bits:
        raise UsageError(
            "with a budget the bits are chosen", "--activations, --weights and --keep say them",
            "leave them out, or leave out --flash, --ram and --front",
        )  # fmt: skip
    board, semantics = load_target(asked.target), profile_named(profile)
    streamed, flash = asked.input_from == "streamed", asked.input_from == "flash"
    wanted = Wanted(ram=asked.ram, streamed_input=streamed, flash_input=flash)
    machine = Machine(semantics, core_of(board, asked.optimize), wanted)

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(name, done, total)

    studied = study(graph, samples, settings, stage("calibrate"))
    sensitivity = measure_sensitivity(studied, stage("sensitivity"))
    budget = Budget(asked.ram, asked.flash)
    choice, quantized, takes = find(studied, sensitivity, budget, machine, stage("choose"))
    own = studied.samples
    points = []
    if asked.front:
        points = trade_offs(studied, sensitivity, machine, own, semantics, stage("front"))
    points.append(point("chosen", choice, quantized, takes, own, semantics, chosen=True))
    other = quantmcu(studied, asked.ram) if asked.compare else None
    document = MixedDocument(
        target=board.name, ram_budget=asked.ram, flash_budget=asked.flash,
        front=front_rows(studied.floats, undominated(points)),
        quantmcu=patch_row(studied.floats, other) if other else None,
    )  # fmt: skip
    return quantized, document
