"""Turn a float Graph and samples into what each method of quantisation gains, in decibels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.measure import measure
from tinydeploy.quantize.quantize import Settings, quantize

Array = NDArray[Any]
Samples = Sequence[Sequence[Array]]


@dataclass(frozen=True, slots=True)
class Effect:
    """Say how good a network's outputs are with one choice of methods: `sqnr` in decibels of the
    worst output, and the share of samples whose first output is largest at the same place.
    """

    method: str
    settings: Settings
    sqnr: float
    agreement: float


def plain(settings: Settings) -> Settings:
    """Switch every method off: rounding to nearest, all values spanned."""
    return replace(
        settings, ranges="min-max", rounding="nearest", equalize=False, correct_bias=False,
        codebooks=False,
    )  # fmt: skip


_ALONE: tuple[tuple[str, Callable[[Settings], Settings]], ...] = (
    ("none", lambda s: s),
    ("percentile ranges", lambda s: replace(s, ranges="percentile")),
    ("least-error ranges", lambda s: replace(s, ranges="mse")),
    ("SQuant rounding", lambda s: replace(s, rounding="squant")),
    ("feedback rounding", lambda s: replace(s, rounding="feedback")),
    ("equalisation", lambda s: replace(s, equalize=True)),
    ("bias correction", lambda s: replace(s, correct_bias=True)),
    ("codebooks", lambda s: replace(s, codebooks=True)),
)


def variants(settings: Settings) -> list[tuple[str, Settings]]:
    """Return each method alone, then those chosen by `settings`, then all together.

    Codebooks are for weights of 4 bits, and are left out where there are none.
    """
    base = plain(settings)
    coded = 4 in (settings.weight_bits, *settings.node_bits.values())
    alone = [(name, change(base)) for name, change in _ALONE if coded or name != "codebooks"]
    together = replace(base, rounding="feedback", equalize=True, correct_bias=True, codebooks=coded)
    return [*alone, ("as chosen", settings), ("all", together)]


def effects(
    graph: Graph,
    samples: Samples,
    settings: Settings,
    tested: Samples | None = None,
    profile: IntegerProfile = PROFILES["litert"],
    progress: Progress = quiet,
) -> list[Effect]:
    """Quantise with each method alone, as chosen and with all, and measure on `tested` samples.

    Without `tested` the samples of the calibration are measured. The graph is quantised some ten
    times. Raises what `quantize` raises.
    """
    found = []
    tried = variants(settings)
    for done, (name, chosen) in enumerate(tried):
        result = quantize(graph, samples, chosen)
        measured = measure(
            result.floats, result.integers, samples if tested is None else tested, profile
        )
        found.append(Effect(name, chosen, min(measured.outputs), measured.agreement))
        progress(done + 1, len(tried))
    return found
