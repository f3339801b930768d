"""Turn the results of the pipeline's stages into a Document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tinydeploy.build.firmware import Firmware
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.plan.describe import SegmentView, places, segment_views
from tinydeploy.plan.flash import plan_constants
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.search import Choice
from tinydeploy.quantize.measure import to_real
from tinydeploy.report import document as doc
from tinydeploy.targets import Target
from tinydeploy.verify.accuracy import accuracy, metric_for
from tinydeploy.verify.compare import Verdict
from tinydeploy.verify.samples import Samples


def assemble(
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    model_name: str,
    model_macs: int,
    stages: list[tuple[str, float]],
    target: Target | None = None,
    firmware: Firmware | None = None,
    samples: Samples | None = None,
    verdict: Verdict | None = None,
    unit: str = "",
    counts: tuple[int, ...] = (),
    stack_bytes: int | None = None,
    front: Sequence[Choice] = (),
) -> doc.Document:
    """Return the document of whatever stages have run so far."""
    return doc.Document(
        model=doc.Model(name=model_name, sha256=graph.source_sha256, macs=model_macs),
        target=target.name if target else None,
        profile=profile.name,
        memory=_memory(plan, target, firmware, stack_bytes),
        plan=doc.PlanFigures(
            input=plan.input,
            mac_factor=next((c.mac_factor for c in front if c.plan is plan), 1.0),
            allocator=plan.allocator,
            segments=[_segment(graph, view) for view in segment_views(graph, plan)],
            places=[
                doc.PlaceFigures(name=p.name, memory=p.memory, offset=p.inside, bytes=p.bytes)
                for p in places(graph, plan)
                if plan.several
            ],
            front=[
                doc.FrontFigures(
                    arena_bytes=c.plan.arena_bytes,
                    instructions=round(c.instructions),
                    const_bytes=plan_constants(c.graph, profile, c.plan),
                    chosen=c.plan is plan,
                    mac_factor=c.mac_factor,
                )
                for c in front
            ],
        ),
        verify=_verify(verdict, samples) if verdict and samples else None,
        profile_run=_profile(graph, plan, unit, counts) if verdict else None,
        accuracy=_accuracy(graph, verdict, samples) if verdict and samples else None,
        stages=[doc.Stage(name=name, seconds=round(seconds, 4)) for name, seconds in stages],
    )


def _segment(graph: Graph, view: SegmentView) -> doc.SegmentFigures:
    segment = view.segment
    return doc.SegmentFigures(
        kind=segment.kind,
        nodes=list(segment.nodes),
        ops=[graph.nodes[p].op for p in segment.nodes],
        steps=max(1, len(segment.calls)),
        alive_bytes=view.alive_bytes,
        scratch_bytes=view.scratch_bytes,
        rings=[
            doc.RingFigures(tensor=p.name, rows_held=p.rows_held, rows=p.rows, bytes=p.bytes)
            for p in view.of_kind("ring")
        ],
    )


def memory_uses(
    plan: MemoryPlan, target: Target | None, firmware: Firmware | None
) -> list[doc.MemoryUse]:
    """Return what each memory of a board holds; before a build only the arena is known."""
    if target is None or target.architecture == "host":
        return []
    used = dict(firmware.sizes.memories) if firmware else {}
    home = target.memory("arena").name
    arenas = {a.memory or home: a.bytes for a in plan.arenas}
    return [
        doc.MemoryUse(
            name=m.name,
            kind=m.kind,
            size=m.size,
            cost=m.cost,
            arena_bytes=arenas.get(m.name, 0),
            used_bytes=used.get(m.name),
            fits=max(arenas.get(m.name, 0), used.get(m.name, 0)) <= m.size,
        )
        for m in target.memories
    ]


def _memory(
    plan: MemoryPlan, target: Target | None, firmware: Firmware | None, stack_bytes: int | None
) -> doc.MemoryFigures:
    uses = memory_uses(plan, target, firmware)
    outside = sum(b.bytes for b in plan.outside) if plan.outside else None
    figures = doc.MemoryFigures(
        arena_bytes=plan.arena_bytes,
        input_bytes=outside,
        memories=uses,
        lower_bound_bytes=plan.lower_bound_bytes,
        optimal=plan.optimal,
    )
    if firmware is None:
        return figures
    return doc.MemoryFigures(
        arena_bytes=plan.arena_bytes,
        ram_bytes=firmware.ram_bytes,
        flash_bytes=firmware.flash_bytes,
        code_bytes=firmware.code_bytes,
        const_bytes=firmware.model_const_bytes,
        model_code_bytes=firmware.model_code_bytes,
        code_in_ram_bytes=firmware.sizes.code_in_ram_bytes,
        stack_bytes=stack_bytes,
        input_bytes=outside,
        fits=True,  # the linker placed it within the target's memories
        memories=uses,
        lower_bound_bytes=plan.lower_bound_bytes,
        optimal=plan.optimal,
    )


def _verify(verdict: Verdict, samples: Samples) -> doc.VerifyFigures:
    first = verdict.first_mismatch
    return doc.VerifyFigures(
        bit_exact=verdict.bit_exact,
        samples=verdict.samples,
        values=verdict.values,
        differing=verdict.differing,
        max_abs_diff=verdict.max_abs_diff,
        oracle=verdict.oracle,
        inputs=samples.origin,
        first_mismatch=doc.MismatchFigures(
            **{**dataclasses.asdict(first), "index": list(first.index)}
        )
        if first
        else None,
    )


def counted_parts(graph: Graph, plan: MemoryPlan) -> list[tuple[str, str, int]]:
    """Return name, operator and MACs of each step that the device counts by itself.

    The nodes of a streamed segment take turns; they are counted together.
    """
    return [
        (
            graph.nodes[segment.nodes[-1]].name,
            "+".join(graph.nodes[p].op for p in segment.nodes),
            sum(
                op_named(n.op).macs(Call(graph, n)) for n in (graph.nodes[p] for p in segment.nodes)
            ),
        )
        for segment in plan.segments
    ]


def _profile(graph: Graph, plan: MemoryPlan, unit: str, counts: tuple[int, ...]) -> doc.ProfileRun:
    nodes = [
        doc.NodeCount(name=name, op=op, macs=macs, count=count)
        for (name, op, macs), count in zip(counted_parts(graph, plan), counts, strict=True)
    ]
    return doc.ProfileRun(unit=unit, total=sum(counts), nodes=nodes)


def _accuracy(graph: Graph, verdict: Verdict, samples: Samples) -> doc.Accuracy | None:
    labels = samples.labels
    if labels is None:
        return None
    first = graph.tensors[graph.outputs[0]]
    inputs = [to_real(graph, graph.inputs[0], x[0]) for x in samples.inputs]
    metric = metric_for(inputs[0], np.empty(first.shape), labels)

    def score(outputs: Sequence[tuple[np.ndarray, ...]]) -> float:
        real = [o[0] if o[0].dtype.kind == "f" else to_real(graph, graph.outputs[0], o[0])
                for o in outputs]  # fmt: skip
        return accuracy(metric, inputs, real, labels)

    return doc.Accuracy(
        metric=metric,
        samples=verdict.samples,
        device=score(verdict.outputs),
        reference=score(verdict.reference_outputs),
        floats=accuracy(metric, inputs, samples.floats, labels) if samples.floats else None,
    )
