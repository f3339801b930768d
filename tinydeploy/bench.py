"""Turn models and targets into rows of figures: instructions, memory, code, per deployment."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tinydeploy import pipeline
from tinydeploy.build.size import rooms_of
from tinydeploy.errors import FitError, UsageError
from tinydeploy.ir import DType
from tinydeploy.plan.search import AUTO, Wanted
from tinydeploy.report.tables import markdown
from tinydeploy.targets import Target
from tinydeploy.verify.samples import random_samples

Row = dict[str, Any]
# Two inputs: a random one, whose instructions are counted, and one more for the proof.
_SAMPLES = 2


def run_all(
    models: Sequence[Path],
    targets: Sequence[Target],
    modes: Sequence[str],
    profile: str,
    wanted: Wanted = AUTO,
    progress: pipeline.Progress = pipeline.silent,
) -> list[Row]:
    """Deploy every model to every target in every mode; a model that does not fit has no row."""
    rows = []
    work = [(m, t, mode) for m in models for t in targets for mode in modes]
    for done, (model, target, mode) in enumerate(work):
        progress("bench", done, len(work))
        try:
            rows.append(run_one(model, target, mode, profile, wanted))
        except FitError:
            continue
    if not rows:
        raise FitError("no model fits any of the targets")
    return rows


def run_one(
    model: Path,
    target: Target,
    optimize: str,
    profile: str,
    wanted: Wanted = AUTO,
) -> Row:
    """Deploy one model and return its figures in bytes and instructions (host: nanoseconds).

    `weights` is what the int8 weights alone take in the model; `const` has them as the kernels
    want them, with all tables. Cycles are estimated, for the cores that run.cycles knows.
    """
    clock = pipeline.Clock()
    prepared = pipeline.prepare(
        model,
        profile,
        "auto",
        clock,
        pipeline.core_of(target, optimize),
        wanted=wanted,
        rooms=rooms_of(target),
    )
    generated = pipeline.generate_sources(prepared, target, clock)
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as temporary:
        folder = Path(temporary) / "out"
        level = pipeline.compiler_level(optimize)
        firmware = pipeline.build(prepared, generated, target, folder, level, clock)
        samples = random_samples(prepared.graph, _SAMPLES)
        measured = pipeline.run(prepared, firmware, target, samples, clock)
        cycles = pipeline.estimated_cycles(prepared, firmware, target, samples)
    weights = sum(t.bytes for t in prepared.graph.tensors if t.constant and t.dtype is DType.INT8)
    total = sum(measured.counts)
    return {
        "model": model.stem,
        "target": target.name,
        "optimize": optimize,
        "exact": measured.verdict.bit_exact,
        measured.unit: total,
        "MAC/instr": round(prepared.macs / total, 3) if total else 0.0,
        "est. cycles": cycles if cycles is not None else "",
        "arena": prepared.plan.arena_bytes,
        "code": firmware.model_code_bytes,
        "const": firmware.model_const_bytes,
        "weights": weights,
        "stack": measured.stack_bytes,
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON or, to a file named .md, as a Markdown table."""
    if path.suffix == ".md":
        text = markdown(rows).encode()
    else:
        text = msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n"
    try:
        path.write_bytes(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}", error.strerror or "") from error


def worse(baseline: Sequence[Row], now: Sequence[Row], tolerance: float = 0.01) -> list[str]:
    """Return a sentence per figure that grew by more than the tolerance, or that is missing."""
    current = {(r["model"], r["target"], r["optimize"]): r for r in now}
    found = []
    for row in baseline:
        key = (row["model"], row["target"], row["optimize"])
        if key not in current:
            found.append(f"{key} was not measured")
            continue
        for name in ("instructions", "arena", "code", "const", "stack"):
            before, after = row[name], current[key][name]
            if after > before * (1 + tolerance):
                found.append(f"{key} {name}: {after:,} instead of {before:,}")
    return found
