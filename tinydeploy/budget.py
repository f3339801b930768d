"""Turn a budget file into deployments and a verdict on each: exact, within limits, not slower."""

from __future__ import annotations

import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tinydeploy import pipeline
from tinydeploy.build.size import rooms_of
from tinydeploy.errors import FitError, UsageError
from tinydeploy.plan.search import Wanted
from tinydeploy.report.assemble import assemble
from tinydeploy.report.document import Document
from tinydeploy.targets import load_target
from tinydeploy.verify.floats import load_floats
from tinydeploy.verify.samples import load_samples, random_samples

_LARGEST_FILE = 1 << 20
# Random inputs of a deployment without data: one is counted, the others are for the proof.
_RANDOM_SAMPLES = 4


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Refuse unknown fields: a misspelt limit would never fail."""


class Limits(_Table, frozen=True, kw_only=True):
    """Hold the most that a deployment may take: bytes, and instructions of one inference.

    `accuracy` is the least share of right answers (or area under the curve), 0 to 1;
    `slower_percent` how many instructions more than in the baseline are still accepted.
    """

    arena: int | None = None
    ram: int | None = None
    flash: int | None = None
    instructions: int | None = None
    accuracy: float | None = None
    slower_percent: float | None = None


class Deployment(_Table, frozen=True, kw_only=True):
    """Name a model, a target and how to deploy; paths are relative to the budget file."""

    model: str
    target: str
    data: str | None = None
    samples: int | None = None
    optimize: Literal["speed", "balanced", "size"] = "balanced"
    schedule: Literal["auto", "layer", "streamed"] = "auto"
    input: Literal["ram", "flash", "streamed"] = "ram"
    profile: Literal["litert", "tflm"] = "litert"
    limits: Limits = Limits()

    @property
    def title(self) -> str:
        """Return what tells this deployment from the others."""
        chosen = (self.optimize, self.schedule, f"input {self.input}")
        extra = [v for v in chosen if v not in ("balanced", "auto", "input ram")]
        return ", ".join([f"{Path(self.model).name} on {self.target}", *extra])


class Budget(_Table, frozen=True, kw_only=True):
    """Hold all deployments; `baseline` is the file that keeps their instructions."""

    deployment: tuple[Deployment, ...]
    baseline: str = "tinydeploy-baseline.json"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Give the result of one limit; `detail` is a sentence with figures."""

    name: str
    passed: bool
    detail: str


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold the checks of one deployment, and its instructions if it ran."""

    title: str
    checks: list[Check]
    instructions: int | None = None

    @property
    def passed(self) -> bool:
        return all(c.passed for c in self.checks)


def load_budget(path: Path) -> Budget:
    """Read a budget file; raises UsageError for one that is unreadable or says unknown things."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
        if len(raw) > _LARGEST_FILE:
            raise UsageError(f"{path} is too large for a budget file")
        budget = msgspec.convert(tomllib.loads(raw.decode()), Budget, strict=True)
    except OSError as error:
        raise UsageError(f"cannot read the budget {path}", error.strerror or "") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a valid budget", str(error),
            "a [[deployment]] has model, target and a table [deployment.limits]",
        ) from error  # fmt: skip
    titles = [d.title for d in budget.deployment]
    if not titles:
        raise UsageError(f"{path} names no deployment")
    if twice := {t for t in titles if titles.count(t) > 1}:
        raise UsageError(f"{path} names a deployment twice", ", ".join(sorted(twice)))
    return budget


def check(
    deployment: Deployment, folder: Path, before: int | None, progress: pipeline.Progress
) -> Result:
    """Deploy once and compare with the limits; `before` are the baseline's instructions.

    A model that does not fit its target fails the check `fits`; all other errors are raised.
    """
    try:
        document = _deploy(deployment, folder, progress)
    except FitError as error:
        why = "; ".join(part for part in (error.what, error.why, error.hint) if part)
        return Result(title=deployment.title, checks=[Check(name="fits", passed=False, detail=why)])
    count = document.profile_run.total if document.profile_run else None
    return Result(
        title=deployment.title, checks=_checks(document, deployment.limits, before),
        instructions=count,
    )  # fmt: skip


def _deploy(deployment: Deployment, folder: Path, progress: pipeline.Progress) -> Document:
    d, target = deployment, load_target(_resolved(deployment.target, folder))
    data = folder / d.data if d.data else None
    clock = pipeline.Clock(progress)
    prepared = pipeline.prepare(
        folder / d.model, d.profile, "auto", clock, pipeline.core_of(target, d.optimize),
        wanted=Wanted(d.schedule, None, d.input == "streamed", 1.0, d.input == "flash"),
        rooms=rooms_of(target),
        calibration=lambda graph: load_floats(graph, data).inputs if data else None,
    )  # fmt: skip
    if data:
        samples = load_samples(prepared.graph, data, None, d.samples)
    else:
        samples = random_samples(prepared.graph, d.samples or _RANDOM_SAMPLES)
    generated = pipeline.generate_sources(prepared, target, clock)
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as temporary:
        level = pipeline.compiler_level(d.optimize)
        out = Path(temporary) / "out"
        firmware = pipeline.build(prepared, generated, target, out, level, clock)
        measured = pipeline.run(prepared, firmware, target, samples, clock)
        return assemble(
            prepared.graph, prepared.plan, prepared.profile, prepared.path.name, prepared.macs,
            clock.stages, target, firmware, samples, measured.verdict, measured.unit,
            measured.counts, measured.stack_bytes, prepared.front,
        )  # fmt: skip


def _resolved(target: str, folder: Path) -> str | Path:
    return folder / target if target.endswith(".toml") else target


def _checks(d: Document, limits: Limits, before: int | None) -> list[Check]:
    assert d.verify and d.profile_run
    exact = f"{d.verify.differing:,} of {d.verify.values:,} output values differ"
    found = [Check(name="exact", passed=d.verify.bit_exact, detail=exact)]
    m = d.memory
    for name, most, value, unit in (
        ("arena", limits.arena, m.arena_bytes, "bytes"),
        ("ram", limits.ram, m.ram_bytes, "bytes"),
        ("flash", limits.flash, m.flash_bytes, "bytes"),
        ("instructions", limits.instructions, d.profile_run.total, d.profile_run.unit),
    ):
        if most is not None:
            assert value is not None
            words = f"{value:,} {unit}, at most {most:,} are allowed"
            found.append(Check(name=name, passed=value <= most, detail=words))
    if limits.accuracy is not None:
        if d.accuracy is None:
            found.append(Check(name="accuracy", passed=False, detail="the data has no labels"))
        else:
            words = f"{d.accuracy.device:.4f} on {d.accuracy.samples} samples, at least "
            found.append(Check(name="accuracy", passed=d.accuracy.device >= limits.accuracy,
                               detail=f"{words}{limits.accuracy:g} is asked for"))  # fmt: skip
    if limits.slower_percent is not None:
        now = d.profile_run.total
        if before is None:
            words, passed = "the baseline has no figure; write one with --update", False
        else:
            change = 100 * (now / before - 1) if before else 0.0
            passed = change <= limits.slower_percent
            words = f"{now:,} {d.profile_run.unit}, {change:+.1f} % against {before:,}"
        found.append(Check(name="speed", passed=passed, detail=words))
    return found


def check_all(
    path: Path,
    progress: pipeline.Progress = pipeline.silent,
    tell: Callable[[Result], None] = lambda result: None,
    update: bool = False,
) -> list[Result]:
    """Check every deployment of a budget file; with `update` the baseline is written anew first
    and compared with itself.
    """
    budget, folder = load_budget(path), path.parent
    keep = folder / budget.baseline
    before = {} if update else _baseline(keep)
    results = []
    for deployment in budget.deployment:
        result = check(deployment, folder, before.get(deployment.title), progress)
        if update and result.instructions is not None:
            before[deployment.title] = result.instructions
            new = [Check(name=c.name, passed=True, detail="the baseline was written anew")
                   if c.name == "speed" else c for c in result.checks]  # fmt: skip
            result = msgspec.structs.replace(result, checks=new)
        results.append(result)
        tell(result)
    if update:
        text = msgspec.json.format(msgspec.json.encode(before), indent=1) + b"\n"
        try:
            keep.write_bytes(text)
        except OSError as error:
            raise UsageError(f"cannot write {keep}", error.strerror or "") from error
    return results


def _baseline(path: Path) -> dict[str, int]:
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{path} is damaged", str(error), "write it anew with --update") from error


def junit(results: Sequence[Result]) -> bytes:
    """Return results as JUnit XML, one test case per check, as CI servers read it."""
    failures = sum(not c.passed for r in results for c in r.checks)
    total = sum(len(r.checks) for r in results)
    suites = ElementTree.Element("testsuites", tests=str(total), failures=str(failures))
    for r in results:
        wrong = str(sum(not c.passed for c in r.checks))
        suite = ElementTree.SubElement(
            suites, "testsuite", name=r.title, tests=str(len(r.checks)), failures=wrong
        )
        for c in r.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=r.title, name=c.name)
            if c.passed:
                ElementTree.SubElement(case, "system-out").text = c.detail
            else:
                ElementTree.SubElement(case, "failure", message=c.detail)
    found: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return found
