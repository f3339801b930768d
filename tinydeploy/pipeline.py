"""Turn a model file and a target into verified firmware: the only place that knows the order."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tinydeploy import __version__
from tinydeploy.build.firmware import Firmware, build_firmware
from tinydeploy.build.folder import rebuild
from tinydeploy.build.size import check_fit, const_room
from tinydeploy.codegen import GeneratedModel, Provenance, generate
from tinydeploy.errors import FitError, UsageError
from tinydeploy.importers import is_tflite, read_model, tdm
from tinydeploy.ir import Graph
from tinydeploy.manifest import (
    MANIFEST,
    Manifest,
    ManifestArena,
    ManifestSegment,
    ManifestStrips,
    ManifestWanted,
    keep_board,
    load_board,
    open_folder,
    read_manifest,
    write_manifest,
)
from tinydeploy.numerics.profile import IntegerProfile, profile_named
from tinydeploy.ops.execute import total_macs
from tinydeploy.passes import run_passes
from tinydeploy.plan import search
from tinydeploy.plan.join import join_in_memory, joined_at
from tinydeploy.plan.layout import Arena, MemoryPlan, Segment
from tinydeploy.plan.liveness import keep_outside
from tinydeploy.plan.memories import Room, divided, in_memories
from tinydeploy.plan.planner import peak_step
from tinydeploy.plan.search import AUTO, Choice, Wanted
from tinydeploy.plan.select import Core, Selection, select
from tinydeploy.plan.strips import Strips, joined, split
from tinydeploy.quantize.normal import is_float
from tinydeploy.quantize.quantize import Samples as Calibration
from tinydeploy.quantize.quantize import quantize
from tinydeploy.run.cycles import can_estimate, estimate
from tinydeploy.run.device import Device, Where, open_device
from tinydeploy.run.qemu import Link
from tinydeploy.targets import Target
from tinydeploy.verify.compare import Verdict, verify, write_inputs
from tinydeploy.verify.samples import Samples

Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(slots=True)
class Clock:
    """Record how long each stage took, in seconds, and tell a progress display about it."""

    progress: Progress = silent
    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int], None]]:
        started = time.perf_counter()
        self.progress(name, 0, 0)
        try:
            yield lambda done, total: self.progress(name, done, total)
        finally:
            self.stages.append((name, time.perf_counter() - started))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Hold a network ready for code generation."""

    path: Path
    graph: Graph
    plan: MemoryPlan
    profile: IntegerProfile
    macs: int  # of the model as given, before passes dropped work
    imported: Graph
    wanted: Wanted = AUTO
    front: tuple[Choice, ...] = ()
    strips: Strips | None = None
    archive: bytes | None = None  # the .tdm file that a float model became
    floats: Graph | None = None  # the float model
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold what one run on a device gave; counts per step in `unit`."""

    verdict: Verdict
    unit: str
    counts: tuple[int, ...]
    stack_bytes: int


@dataclass(frozen=True, slots=True)
class Place:
    """Say where to run: an emulator, this computer or a board's port.

    `timeout` is the longest silence of the device, in seconds; `link` is how an emulator is
    reached.
    """

    where: Where | None = None
    port: str | None = None
    timeout: float = 60.0
    link: Link = "semihosting"


def core_of(target: Target, optimize: str) -> Core:
    """Return what kernels are chosen for on a target."""
    return Core(target.isa, frozenset(target.features), optimize)


def compiler_level(optimize: str) -> str:
    """Return the compiler's optimisation level that goes with a goal."""
    return "-Os" if optimize == "size" else "-O2"


def prepare(
    path: Path,
    profile: str,
    allocator: str,
    clock: Clock,
    core: Core | None = None,
    preferred: Callable[[Graph, IntegerProfile], Mapping[int, str]] = lambda graph, profile: {},
    wanted: Wanted = AUTO,
    rooms: Sequence[Room] = (),
    calibration: Callable[[Graph], Calibration | None] | None = None,
) -> Prepared:
    """Import, rewrite and plan a model; raises ModelError or UsageError.

    Without a core the plan is for the portable kernels. `preferred` names kernels that tuning
    found, per node. `wanted` says how the plan is chosen from the front, and
    `rooms` which memories the arena may be divided over (build.size.rooms_of). A float model is
    quantised with the samples that `calibration` gives for it, and refused without.
    """
    semantics = profile_named(profile)
    with clock.stage("import"):
        graph, archive, floats = read_model(path), None, None
    warnings: tuple[str, ...] = ()
    if calibration is not None and is_float(graph):
        with clock.stage("quantize") as progress:
            floats = graph
            quantized = quantize(graph, calibration(graph), progress=progress)
            archive, warnings = quantized.archive(), quantized.warnings
            graph = tdm.read_bytes(archive)
    elif not is_tflite(path):
        # What it was read from may be several files; this one is enough to open it again.
        archive = tdm.to_bytes(graph)
        graph = tdm.read_bytes(archive)
    macs, imported = total_macs(graph), graph
    with clock.stage("passes"):
        graph = run_passes(graph, semantics)

    def chosen(graph: Graph) -> Selection:
        named = preferred(graph, semantics)
        return selected(graph, semantics, core or Core(), wanted, named)

    with clock.stage("plan"):
        choice, front = search.plan(
            graph, semantics, chosen(graph), wanted, allocator, reselect=chosen
        )
        choice, front = in_memories(choice, front, rooms, semantics, wanted, allocator)
    return Prepared(
        path, choice.graph, choice.plan, semantics, macs, imported, wanted, front, choice.strips,
        archive, floats, warnings,
    )  # fmt: skip


def selected(
    graph: Graph,
    profile: IntegerProfile,
    core: Core,
    wanted: Wanted,
    preferred: Mapping[int, str] | None = None,
) -> Selection:
    """Return kernels for a network, and what needs none because memory alone does it."""
    selection = select(graph, profile, core, preferred)
    outside = graph.inputs if wanted.flash_input else ()
    selection = keep_outside(graph, selection, outside)
    joined = join_in_memory(graph, profile, selection, streamed=wanted.schedule != "layer")
    return keep_outside(graph, joined, outside)


def generate_sources(prepared: Prepared, target: Target, clock: Clock) -> GeneratedModel:
    """Render the C of a prepared network."""
    name = prepared.path.name
    command = f"tinydeploy deploy {name} --target {target.name}"
    if prepared.profile.name != "litert":
        command += f" --profile {prepared.profile.name}"
    if prepared.wanted.schedule != "auto":
        command += f" --schedule {prepared.wanted.schedule}"
    if prepared.wanted.ram is not None:
        command += f" --ram {prepared.wanted.ram}"
    if prepared.wanted.streamed_input:
        command += " --input streamed"
    if prepared.wanted.flash_input:
        command += " --input flash"
    if prepared.wanted.mac_factor > 1:
        command += f" --mac-factor {prepared.wanted.mac_factor:g}"
    if prepared.plan.selection.core.optimize != "balanced":
        command += f" --optimize {prepared.plan.selection.core.optimize}"
    with clock.stage("generate"):
        return generate(
            prepared.graph,
            prepared.plan,
            prepared.profile,
            Provenance(name, prepared.graph.source_sha256, target.name, command),
            const_room(target, [k.function for k in prepared.plan.selection.kernels if k]),
        )


def build(
    prepared: Prepared,
    generated: GeneratedModel,
    target: Target,
    folder: Path,
    optimisation: str,
    clock: Clock,
    code_in_ram: bool = False,
) -> Firmware:
    """Compile and link into a folder, and note there what was built.

    Raises FitError before building when the figures cannot fit, naming the node at the peak.
    """
    open_folder(folder)
    arena = max(prepared.plan.arenas[0].bytes, 4)
    steps = max(256, len(prepared.plan.segments))
    if target.architecture != "host":
        try:
            check_fit(
                target, arena, generated.const_bytes, max_steps=steps,
                arenas=prepared.plan.several, slow_const_bytes=generated.slow_const_bytes,
            )  # fmt: skip
        except FitError as error:
            peak = peak_step(prepared.graph, prepared.plan)
            raise FitError(
                error.what, error.why, f"the arena is largest at {peak}; {error.hint}"
            ) from error
    with clock.stage("build"):
        firmware = build_firmware(
            generated.sources, target, arena, folder, optimisation=optimisation, max_steps=steps,
            code_in_ram=code_in_ram, arenas=prepared.plan.several,
        )  # fmt: skip
        copy: Literal["model.tflite", "model.tdm"] = "model.tflite"
        if prepared.archive:
            copy = "model.tdm"
            (folder / copy).write_bytes(prepared.archive)
        else:
            with suppress(shutil.SameFileError):  # a folder's own model, deployed into it again
                shutil.copyfile(prepared.path, folder / copy)
        manifest = Manifest(
            format=1,
            version=__version__,
            model=prepared.path.name,
            copy=copy,
            sha256=prepared.graph.source_sha256,
            target=target.name,
            board=keep_board(folder, target),
            profile=prepared.profile.name,
            allocator=prepared.plan.allocator,
            optimize=prepared.plan.selection.core.optimize,
            wanted=ManifestWanted(
                schedule=prepared.wanted.schedule,
                ram=prepared.wanted.ram,
                streamed_input=prepared.wanted.streamed_input,
                mac_factor=prepared.wanted.mac_factor,
                flash_input=prepared.wanted.flash_input,
            ),
            strips=ManifestStrips(end=prepared.strips.end, parts=prepared.strips.parts)
            if prepared.strips
            else None,
            optimisation=optimisation,
            digest=generated.digest.hex(),
            kernels=tuple(k.function if k else "" for k in prepared.plan.selection.kernels),
            segments=tuple(
                ManifestSegment(kind=s.kind, nodes=s.nodes, feeds=s.feeds, paces=s.paces)
                for s in prepared.plan.segments
            ),
            offsets=prepared.plan.offsets,
            lower_bound=prepared.plan.lower_bound_bytes,
            arenas=tuple(
                ManifestArena(memory=a.memory, bytes=a.bytes) for a in prepared.plan.several
            ),
        )
        write_manifest(folder, manifest)
    return firmware


def reopen(folder: Path, clock: Clock) -> tuple[Prepared, Target, Manifest]:
    """Prepare again what a deployment folder was built from; raises UsageError if it changed."""
    manifest = read_manifest(folder)
    target = load_board(folder, manifest)
    core = core_of(target, manifest.optimize)
    path = folder / manifest.copy
    prepared = prepare(path, manifest.profile, "greedy", clock, core, wanted=Wanted("layer"))
    if prepared.graph.source_sha256 != manifest.sha256:
        raise UsageError(
            f"{folder / manifest.copy} is not the model that was deployed",
            f"SHA-256 {prepared.graph.source_sha256[:16]}..., expected {manifest.sha256[:16]}...",
        )
    graph = prepared.graph.replace(name=Path(manifest.model).stem)
    wishes = dict(enumerate(manifest.kernels))
    strips = Strips(manifest.strips.end, manifest.strips.parts) if manifest.strips else None
    try:
        if strips:
            graph = split(graph, strips)
        selection = select(graph, prepared.profile, core, wishes)
        outside = graph.inputs if manifest.wanted.flash_input else ()
        selection = keep_outside(graph, selection, outside)
        selection = joined_at(graph, selection, [p for p, k in wishes.items() if not k])
        if strips:
            selection = joined(graph, selection, strips)
        selection = keep_outside(graph, selection, outside)
        segments = [Segment(s.kind, s.nodes, (), s.feeds, s.paces) for s in manifest.segments]
        plan = search.plan_again(
            graph, prepared.profile, selection, segments, manifest.offsets, manifest.lower_bound,
            manifest.allocator, manifest.wanted.streamed_input,
        )  # fmt: skip
        plan = divided(plan, [Arena(a.memory, a.bytes) for a in manifest.arenas])
    except ValueError as error:
        raise UsageError(f"{folder / MANIFEST} is damaged", str(error)) from error
    names = tuple(k.function if k else "" for k in plan.selection.kernels)
    if names != manifest.kernels or manifest.version != __version__:
        raise UsageError(
            f"{folder} was made by another version of tinydeploy",
            f"version {manifest.version}, this is {__version__}",
            "deploy into it again",
        )
    return replace(prepared, graph=graph, plan=plan, path=Path(manifest.model)), target, manifest


def rebuild_folder(folder: Path, target: Target, clock: Clock) -> Firmware:
    """Run make in a deployment folder on the sources as they are now."""
    with clock.stage("build"):
        return rebuild(folder, target)


def run(
    prepared: Prepared,
    firmware: Firmware,
    target: Target,
    samples: Samples,
    clock: Clock,
    place: Place = Place(),
) -> Measured:
    """Run all samples on the device, compare every output bit and count per step."""
    with clock.stage("verify") as progress, device(firmware, target, place) as dev:
        verdict = verify(dev, prepared.graph, prepared.plan, prepared.profile, samples, progress)
        counts = tuple(dev.to_unit(t) for t in verdict.counts)
        return Measured(verdict, dev.unit, counts, dev.stack_used())


def estimated_cycles(
    prepared: Prepared, firmware: Firmware, target: Target, samples: Samples
) -> int | None:
    """Return the estimated cycles of one inference, None for cores without a table."""
    if not can_estimate(target):
        return None

    def once(dev: Device) -> None:
        dev.invoke(write_inputs(dev, prepared.graph, prepared.plan, samples.inputs[0]))

    _, cycles = estimate(firmware, target, once)
    return cycles


def device(firmware: Firmware, target: Target, place: Place) -> Device:
    """Open the device that runs a firmware: a port if one is named, else the target's own place."""
    own: Where = "host" if target.architecture == "host" else "qemu"
    where: Where = place.where or ("board" if place.port else own)
    return open_device(firmware, target, where, place.port, place.timeout, place.link)
