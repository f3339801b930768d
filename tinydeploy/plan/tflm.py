"""Turn a .tflite file into a copy that tells TensorFlow Lite Micro where each tensor lies.

TFLM plans its arena when it starts, greedily. A file may carry the plan instead, as metadata
named OfflineMemoryAllocation (tflite-micro, docs/memory_management.md, "Offline planned tensor
allocations"): int32 version, number of subgraphs, number of tensors, then one byte offset per
tensor, -1 where TFLM should choose. TFLM fits the scratch memory of its kernels around these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.plan.arena import bound_of, check_no_overlap, place_in_order
from tinydeploy.plan.eject import allocate_greedy
from tinydeploy.plan.exact import allocate_exact, solver_installed
from tinydeploy.plan.items import simple_items
from tinydeploy.plan.layout import ALIGNMENT, Buffer, aligned

METADATA = "OfflineMemoryAllocation"
_TFLM_ALIGNMENT = 16  # tflite-micro, MicroArenaBufferAlignment()
_VERSION = 1
_SECONDS = 5.0
# Bytes per element by the schema's type name; TFLM has no activations of other types.
_SIZES = {
    "FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "UINT8": 1, "INT64": 8, "BOOL": 1, "INT16": 2,
    "COMPLEX64": 8, "INT8": 1, "FLOAT64": 8, "UINT64": 8, "UINT32": 4, "UINT16": 2, "INT4": 1,
}  # fmt: skip
# What reading a damaged flatbuffer may raise.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class TflmPlan:
    """Hold the offsets of a file's tensors, in bytes; -1 for those that TFLM places.

    buffers: what was placed, each with one tensor; a step is one operator, -1 is before the first.
    arena_bytes: the tensors' part of the arena; greedy_bytes: what TFLM's own planner would take.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    arena_bytes: int
    lower_bound_bytes: int
    greedy_bytes: int


def plan_for_tflm(data: bytes) -> TflmPlan:
    """Return where TFLM should put each tensor of a .tflite file that the importer accepted.

    TFLM runs operators in order and whole and knows of no overlap, so that every tensor gets
    bytes of its own while it lives. Raises ModelError for files with several subgraphs.
    """
    try:
        buffers, count = _buffers(_model(data))
    except _DAMAGE as error:
        raise ModelError("the model file is damaged", str(error)) from error
    # The allocators place in units of ALIGNMENT; here such a unit stands for 16 bytes.
    shrink = _TFLM_ALIGNMENT // ALIGNMENT
    small = [Buffer(b.label, b.tensors, b.bytes // shrink, b.first, b.last) for b in buffers]
    items, large = simple_items(small), simple_items(buffers)
    bound = bound_of(items)
    offsets, total = allocate_greedy(items, bound)
    if total > bound and solver_installed():
        offsets, total, bound = allocate_exact(items, offsets, total, _SECONDS)
    offsets = [o * shrink for o in offsets]
    check_no_overlap(large, offsets)
    per_tensor = [-1] * count
    for buffer, offset in zip(buffers, offsets, strict=True):
        per_tensor[buffer.tensors[0]] = offset
    _, greedy = place_in_order(large, sorted(range(len(buffers)), key=lambda k: -buffers[k].bytes))
    return TflmPlan(tuple(buffers), tuple(per_tensor), total * shrink, bound * shrink, greedy)


def with_metadata(data: bytes, plan: TflmPlan) -> bytes:
    """Return the file with the plan as metadata; an older plan in it is replaced.

    Offsets in a flatbuffer point forward, so a new root in front of the old bytes can share all
    they hold. The old bytes stay as they are, at an address that keeps their alignment.
    """
    import flatbuffers
    import tflite

    try:
        model = _model(data)
        builder = flatbuffers.Builder(len(data) + 1024)
        builder.Prep(_TFLM_ALIGNMENT, len(data))
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        end = builder.Offset()
        entries = [
            end - model.Metadata(k)._tab.Pos
            for k in range(model.MetadataLength())
            if model.Metadata(k).Name() != METADATA.encode()
        ]
        stored = [end - model.Buffers(k)._tab.Pos for k in range(model.BuffersLength())]
        kept = {
            field: end - model._tab.Indirect(model._tab.Pos + at)
            for field, slot in (("OperatorCodes", 1), ("Subgraphs", 2), ("Description", 3),
                                ("MetadataBuffer", 5), ("SignatureDefs", 7))
            if (at := model._tab.Offset(4 + 2 * slot))
        }  # fmt: skip
        version = model.Version()
    except _DAMAGE as error:
        raise ModelError("the model file is damaged", str(error)) from error
    values = np.array([_VERSION, 1, len(plan.offsets), *plan.offsets], "<i4").tobytes()
    builder.StartVector(1, len(values), _TFLM_ALIGNMENT)
    builder.head -= len(values)
    builder.Bytes[builder.head : builder.head + len(values)] = values
    contents = builder.EndVector()
    tflite.BufferStart(builder)
    tflite.BufferAddData(builder, contents)
    stored.append(tflite.BufferEnd(builder))
    name = builder.CreateString(METADATA)
    tflite.MetadataStart(builder)
    tflite.MetadataAddName(builder, name)
    tflite.MetadataAddBuffer(builder, len(stored) - 1)
    entries.append(tflite.MetadataEnd(builder))
    kept["Buffers"], kept["Metadata"] = _vector(builder, stored), _vector(builder, entries)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, version)
    for field, offset in kept.items():
        getattr(tflite, f"ModelAdd{field}")(builder, offset)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def read_metadata(data: bytes) -> tuple[int, ...] | None:
    """Return the offsets that a file carries for TFLM, None if it has none."""
    model = _model(data)
    for k in range(model.MetadataLength()):
        entry = model.Metadata(k)
        if entry.Name() == METADATA.encode():
            raw = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            return tuple(np.frombuffer(raw, "<i4")[3:].tolist())
    return None


def _model(data: bytes) -> Any:
    """Return the root table of a file with one subgraph and all data inside the flatbuffer."""
    import tflite

    model = tflite.Model.GetRootAsModel(data, 0)
    if model.SubgraphsLength() != 1:
        raise ModelError(
            "only networks of one subgraph can be planned for TFLM",
            f"this file has {model.SubgraphsLength()}",
        )
    if any(model.Buffers(k).Offset() > 1 for k in range(model.BuffersLength())):
        raise ModelError("the model keeps data outside its flatbuffer", "nothing may move it")
    return model


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _buffers(model: Any) -> tuple[list[Buffer], int]:
    """Return the tensors that TFLM allocates, with their lifetimes, and how many there are in all.

    Lifetimes are those of tflite-micro's AllocationInfoBuilder::MarkAllocationLifetimes.
    """
    import tflite

    graph = model.Subgraphs(0)
    count, steps = graph.TensorsLength(), graph.OperatorsLength()
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def touch(indices: Iterator[int], step: int) -> None:
        for i in indices:
            if i >= 0:
                first.setdefault(i, step)
                last[i] = step

    touch((graph.Inputs(k) for k in range(graph.InputsLength())), -1)
    for step in range(steps):
        operator = graph.Operators(step)
        touch((operator.Outputs(k) for k in range(operator.OutputsLength())), step)
        touch((operator.Inputs(k) for k in range(operator.InputsLength())), step)
    touch((graph.Outputs(k) for k in range(graph.OutputsLength())), steps)
    types = {v: k for k, v in vars(tflite.TensorType).items() if isinstance(v, int)}
    buffers = []
    for i in sorted(first):
        tensor = graph.Tensors(i)
        name = (tensor.Name() or b"").decode("utf-8", "replace")[:96]
        if tensor.IsVariable() or model.Buffers(tensor.Buffer()).DataLength():
            continue
        kind = types.get(tensor.Type(), "")
        if kind not in _SIZES:
            raise ModelError(f"element type {kind or tensor.Type()} is not supported", where=name)
        size = _SIZES[kind]
        for k in range(tensor.ShapeLength()):
            size *= int(tensor.Shape(k))
        if size > 0:
            whole = aligned(size, _TFLM_ALIGNMENT)
            buffers.append(Buffer(name, (i,), whole, first[i], last[i]))
    return buffers, count
