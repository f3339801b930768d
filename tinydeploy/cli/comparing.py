"""Turn a prepared network into its plan beside published schedules.

python -m tinydeploy.cli.comparing docs/planning.md MODELS brings that page's tables up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tinydeploy import pipeline
from tinydeploy.ir import Graph
from tinydeploy.passes import run_passes
from tinydeploy.pipeline import Clock, Prepared
from tinydeploy.plan.published import METHODS, compare
from tinydeploy.plan.search import Wanted
from tinydeploy.report.document import CompareFigures
from tinydeploy.report.published import compare_figures
from tinydeploy.report.tables import markdown

MAC_FACTOR = 1.5  # what methods may spend that compute some of the network more than once
_PUBLIC = (
    "mlperf_tiny/vww_int8", "mlperf_tiny/ic_int8", "mlperf_tiny/kws_int8", "tflm/person_detect",
    "mcunet/mcunet_vww", "mcunet/mcunet_detection",
)  # fmt: skip


def compared(prepared: Prepared, clock: Clock) -> CompareFigures:
    """Return published schedules of the network that was planned, beside the plan."""
    wanted = prepared.wanted
    counted = not (wanted.streamed_input or wanted.flash_input)
    factor = max(MAC_FACTOR, wanted.mac_factor)
    with clock.stage("compare") as progress:
        found = compare(_unsplit(prepared), factor, counted, progress)
    return compare_figures(prepared.plan, _factor(prepared), found, factor, counted)


def _unsplit(prepared: Prepared) -> Graph:
    """Return the network as it was before it was cut into strips."""
    if prepared.strips is None:
        return prepared.graph
    return run_passes(prepared.imported, prepared.profile)


def with_figures(text: str, models: Path) -> str:
    """Return a page with the tables between its markers made anew, one per place of the input."""
    for name, counted in (("counted", True), ("elsewhere", False)):
        rows = [model_row(models / f"{model}.tflite", counted) for model in _PUBLIC]
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{markdown(rows)}{end}" + rest.split(end)[1]
    return text


def model_row(path: Path, counted: bool) -> dict[str, Any]:
    """Return a model's name, its smallest plans and its published schedules: bytes @ MAC factor."""
    row: dict[str, Any] = {"network": path.stem}
    for name, factor in (("tinydeploy", 1.0), ("tinydeploy, more MACs", MAC_FACTOR)):
        wanted = Wanted("streamed", mac_factor=factor, flash_input=not counted)
        prepared = pipeline.prepare(path, "litert", "auto", Clock(), wanted=wanted)
        row[name] = f"**{_cell(prepared.plan.arena_bytes, _factor(prepared))}**"
    return row | published_cells(_unsplit(prepared), counted)


def published_cells(graph: Graph, counted: bool) -> dict[str, Any]:
    """Return each method's bytes and its MAC factor where that is not 1."""
    found = [s for _, s in compare(graph, MAC_FACTOR, counted)]
    sizes = [s.arena_bytes if counted else s.without_input for s in found]
    return {
        name: _cell(size, s.mac_factor) for name, size, s in zip(METHODS, sizes, found, strict=True)
    }


def _cell(size: int, factor: float) -> str:
    return f"{size:,}" + (f" @ {factor:.2f}" if factor >= 1.005 else "")


def _factor(prepared: Prepared) -> float:
    """Return the MACs of the plan over those of the network."""
    return next((c.mac_factor for c in prepared.front if c.plan is prepared.plan), 1.0)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(
        with_figures(page.read_text(encoding="utf-8"), Path(sys.argv[2])), encoding="utf-8"
    )
