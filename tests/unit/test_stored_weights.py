"""Weights that lie wider in flash so that a plan of little RAM is hardly slower."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tinydeploy.importers.tflite import read_file
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.passes import run_passes
from tinydeploy.plan import search
from tinydeploy.plan.flash import plan_constants
from tinydeploy.plan.select import Core, select
from tinydeploy.plan.simulate import simulate

MODELS = os.environ.get("TINYDEPLOY_MODELS", "")
LITERT = PROFILES["litert"]


@pytest.mark.skipif(not MODELS, reason="TINYDEPLOY_MODELS is not set")
def test_flash_buys_ram_only_where_there_is_room() -> None:
    """Narrow rows: for each call of RV32's kernels, weights are expanded or lie wide in flash."""
    graph = run_passes(read_file(Path(MODELS) / "mlperf_tiny" / "kws_int8.tflite"), LITERT)
    selection = select(graph, LITERT, Core("rv32imac"))
    wanted = search.Wanted(ram=8_900)
    rich, front = search.plan(graph, LITERT, selection, wanted)
    simulate(graph, rich.plan, LITERT)
    usual = min((c for c in front if not c.stored), key=lambda c: c.instructions)
    taken = plan_constants(graph, LITERT, rich.plan)
    added = taken - plan_constants(graph, LITERT, usual.plan)
    assert rich.stored > 0 and abs(added - rich.stored) < 1_000  # places of rows, too
    assert rich.plan.arena_bytes <= 8_900 and rich.instructions <= 1.04 * usual.instructions
    poor, _ = search.plan(graph, LITERT, selection, replace(wanted, flash=taken - 20_000))
    assert not poor.stored and poor.plan.arena_bytes <= 8_900
    assert poor.instructions > 1.04 * usual.instructions
    free, _ = search.plan(graph, LITERT, selection)
    assert not free.stored
