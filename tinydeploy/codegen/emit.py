"""Turn a Graph and its MemoryPlan into a SourceTree of C files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinydeploy import __version__
from tinydeploy.codegen import names
from tinydeploy.codegen.constants import Constants
from tinydeploy.codegen.regions import Region, expression, region_at, regions_of
from tinydeploy.codegen.render import read, render
from tinydeploy.codegen.rows import RowsAt, rows_at
from tinydeploy.codegen.sources import SourceTree
from tinydeploy.ir import Graph
from tinydeploy.ir.dump import describe_tensor
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import RowSource, op_named
from tinydeploy.plan.layout import MemoryPlan


@dataclass(frozen=True, slots=True)
class Provenance:
    """Say in each generated file where it comes from: no paths, no times."""

    model: str
    sha256: str
    target: str
    command: str


@dataclass(frozen=True, slots=True)
class GeneratedModel:
    """Hold the C sources of a network.

    digest: 16 bytes by which a device names the model it runs; const_bytes: weights and tables;
    slow_const_bytes: those of them that are marked TD_CONST_SLOW.
    """

    name: str
    sources: SourceTree
    digest: bytes
    const_bytes: int
    slow_const_bytes: int = 0


def generate(
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    provenance: Provenance,
    const_room: int | None = None,
) -> GeneratedModel:
    """Return the C sources of a network: public header, code, kernels, weights, and the adapter
    that the firmware links (`firmware_model.c`).

    Constants beyond `const_room` bytes are marked TD_CONST_SLOW, those read least per byte first.
    """
    name = names.identifier(graph.name)
    constants = Constants(name)
    regions = regions_of(graph, plan)
    segments: list[dict[str, Any]] = [
        {
            "segment": segment,
            "nodes": [_step(graph, plan, profile, p, constants, regions) for p in segment.nodes],
            "feeds": [_feed(graph, plan, i, constants, regions) for i in segment.feeds],
        }
        for segment in plan.segments
    ]
    for s, loads in zip(segments, _loads(graph, plan, regions), strict=True):
        s["loads"] = loads
    slow = constants.slowest(const_room) if const_room is not None else set()
    kernels = {n["function"]: n for s in segments for n in s["nodes"]}
    shared = {
        "name": name,
        "NAME": name.upper(),
        "reader": f", {name}_read read, void *user" if plan.streamed_input else "",
        "rereads": len({i for s in plan.segments for i in s.feeds})
        < sum(len(s.feeds) for s in plan.segments),
        "reading": ", read, user" if plan.streamed_input else "",
        "version": __version__,
        "provenance": provenance,
        "profile": profile.name,
        "plan": plan,
        "regions": regions,
        # Of functions within the model: what they work in.
        "memory": f"const {name}_memory *m" if len(regions) > 1 else "int8_t *arena",
        "segments": segments,
        "constants": constants.arrays,
        "slow": slow,
        "inputs": _border(graph, plan, regions, graph.inputs, graph.float_inputs),
        "outputs": _border(graph, plan, regions, graph.outputs, graph.float_outputs),
        "kernel_sources": [
            render(f"ops/{k['kernel'].template}.c.j2", function=function, **k["constants"])
            for function, k in sorted(kernels.items())
        ],
    }
    files: dict[str, bytes | str] = {
        f"{name}.h": render("model.h.j2", **shared),
        f"{name}.c": render("model.c.j2", **shared),
        f"{name}_kernels.h": render("kernels.h.j2", **shared),
        f"{name}_weights.h": render("weights.h.j2", **shared),
        f"{name}_weights.c": render("weights.c.j2", **shared),
        "td_fixedpoint.h": read("lib/td_fixedpoint.h"),
        "td_rows.h": read("lib/td_rows.h"),
    }
    digest = bytes.fromhex(SourceTree.of(files).digest())[:16]
    files["firmware_model.c"] = render("firmware_model.c.j2", digest=digest, **shared)
    sizes = {c["symbol"]: c["array"].nbytes for c in constants.arrays}
    return GeneratedModel(
        name, SourceTree.of(files), digest, sum(sizes.values()), sum(sizes[s] for s in slow)
    )


def _step(
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    position: int,
    constants: Constants,
    regions: tuple[Region, ...],
) -> dict[str, Any]:
    """Describe one node for the template: its kernel, parameters, rows and comment."""
    node, selection = graph.nodes[position], plan.selection
    op, kernel = op_named(node.op), selection.kernels[position]
    assert kernel is not None
    site, pace = selection.site(graph, position, profile), selection.pace(position)
    call, fold = site.call, pace if isinstance(pace, int) else 1
    constants.pixels = call.output.elements / (call.output.shape[-1] if call.output.shape else 1)
    region = None if kernel.whole(site) else op.region(call)
    rows = op.rows(call) * fold if region is not None else 1
    if kernel.accumulators:
        region, rows = (RowSource(),), call.input().rows
    pad_row = selection.pad_row_bytes(graph, position)
    pointers = []
    slot = 0
    for source in region or tuple(RowSource(k) for k in op.inputs(call)):
        index = node.inputs[source.input]
        assert index is not None
        tensor, layout = graph.tensors[index], selection.layout(index)
        count = tensor.rows if region is not None else 1
        taps = source.taps
        if kernel.band > 1:
            assert source.dilation == 1 and source.table is None
            taps += (kernel.band - 1) * source.stride
        place = rows_at(plan, index, constants, regions)
        if place is None:
            base = _base(graph, plan, index, constants, position, source.input, regions)
            place = RowsAt(base, layout.row_bytes(tensor) if count > 1 else layout.bytes(tensor))
        pointers.append(
            {
                "rows": place,
                "first": layout.first(tensor),
                "count": count,
                "taps": taps,
                "slot": slot,
                "source": replace(source, dilation=source.dilation * fold),
                "table": _row_table(source, constants, position),
                "inside": _inside(source, taps, rows, count),
            }
        )
        slot += taps
    params = kernel.params(site) if kernel.params else op.params(call, profile)
    values = kernel.constants(site)
    out, out_layout = call.output, selection.layout(node.outputs[0])

    def at(offset: int | None) -> str | None:
        return None if offset is None else expression(regions, offset)

    out_rows = rows_at(plan, node.outputs[0], constants, regions)
    if out_rows is None:
        pitch = out.bytes // rows if out_layout.plain else out_layout.row_bytes(out) // fold
        out_rows = RowsAt(expression(regions, plan.offset_of(node.outputs[0])), pitch)
    pad_row_at = plan.own_offset(plan.pad_rows, position) or 0
    pad_row_first = selection.layout(node.inputs[0] or 0).first(call.input()) if pad_row else 0
    return {
        "index": position,
        "node": node,
        "op": op,
        "kernel": kernel,
        "function": "_".join((kernel.function, *map(str, values.values()))),
        "constants": values,
        "params": _initialiser(params, constants, position),
        "rows": rows,
        "sources": pointers,
        "slots": slot,
        "out_rows": out_rows,
        "out_first": out_layout.first(out),
        "out_bytes": out_layout.row_bytes(out),
        "fold": fold,
        "accumulators": at(plan.own_offset(plan.accumulators, position)),
        "out_layout": out_layout,
        "out": out,
        "pad_row": pad_row,
        "pad_row_inside": at(pad_row_at + pad_row_first),
        "pad_value": call.input().zero_point if pad_row else 0,
        "scratch": at(plan.own_offset(plan.scratch, position)),
        "pad_row_at": at(pad_row_at),
        "reads": [_describe(graph, plan, node.inputs[k], regions) for k in op.inputs(call)],
        "writes": _describe(graph, plan, node.outputs[0], regions),
        "macs": op.macs(call),
    }


def _loads(
    graph: Graph, plan: MemoryPlan, regions: tuple[Region, ...]
) -> list[list[dict[str, Any]]]:
    """Return, per segment, the inputs that are read whole before it runs."""
    loads: list[list[dict[str, Any]]] = [[] for _ in plan.segments]
    if not plan.streamed_input or not loads:
        return loads
    fed = {i for s in plan.segments for i in s.feeds}
    for slot, index in enumerate(graph.inputs):
        if index in fed or index in graph.inputs[:slot]:
            continue
        first = min((p for p, n in enumerate(graph.nodes) if index in n.inputs), default=-1)
        at = next((k for k, s in enumerate(plan.segments) if s.nodes[-1] >= first), 0)
        size = graph.tensors[index].bytes
        place = expression(regions, plan.offset_of(index))
        loads[at].append({"slot": slot, "at": place, "bytes": size})
    return loads


def _feed(
    graph: Graph,
    plan: MemoryPlan,
    index: int,
    constants: Constants,
    regions: tuple[Region, ...],
) -> dict[str, Any]:
    """Describe an input that arrives row by row."""
    return {
        "slot": graph.inputs.index(index),
        "rows": rows_at(plan, index, constants, regions),
        "bytes": plan.selection.layout(index).row_bytes(graph.tensors[index]),
    }


def _describe(
    graph: Graph, plan: MemoryPlan, index: int | None, regions: tuple[Region, ...]
) -> str:
    """Say type, shape, place and layout of a tensor in a comment."""
    tensor = graph.tensor(index)
    assert index is not None
    if tensor.constant:
        return f"{describe_tensor(tensor)} constant"
    layout = str(plan.selection.layout(index))
    rows = plan.row_offsets(index) if index in plan.items.rows else (plan.offset_of(index),)
    region = region_at(regions, min(rows))
    places = sorted({r - region.offset for r in rows})
    where = " ".join(map(str, places[:4])) + (" ..." if len(places) > 4 else "")
    where += f" of {region.name}" if len(regions) > 1 else ""
    return f"{describe_tensor(tensor)} at {where}{', ' if layout else ''}{layout}"


def _row_table(source: RowSource, constants: Constants, position: int) -> str:
    if source.table is None:
        return ""
    return constants.name(np.array(source.table, np.uint16), f"node{position}_rows")


def _inside(source: RowSource, taps: int, rows: int, count: int) -> bool:
    """Tell whether a source is one row that is never padding, so that it needs no test."""
    ends = [*source.rows(0), *source.rows(rows - 1)] if rows else [0]
    return taps == 1 and min(ends) >= 0 and max(ends) < count


def _base(
    graph: Graph,
    plan: MemoryPlan,
    index: int,
    constants: Constants,
    position: int,
    slot: int,
    regions: tuple[Region, ...],
) -> str:
    data = graph.tensors[index].data
    if data is not None:
        symbol = constants.name(data, f"node{position}_input{slot}")
        # Rows are pointers to bytes, whatever the elements.
        return symbol if data.dtype == np.int8 else f"(const int8_t *){symbol}"
    return expression(regions, plan.offset_of(index))


def _initialiser(params: Any, constants: Constants, position: int) -> list[tuple[str, str]]:
    """Return (C expression, field name) per field, in the order of the C struct."""
    items = []
    for f in dataclasses.fields(params):
        value = getattr(params, f.name)
        if isinstance(value, np.ndarray):
            items.append((constants.name(value, f"node{position}_{f.name}"), f.name))
        else:
            items.append((str(int(value)), f.name))
    return items


def _border(
    graph: Graph,
    plan: MemoryPlan,
    regions: tuple[Region, ...],
    indices: tuple[int, ...],
    floats: frozenset[int],
) -> list[dict[str, Any]]:
    return [
        {
            "index": slot,
            "tensor": graph.tensors[i],
            "text": describe_tensor(graph.tensors[i]),
            "flat": plan.offset_of(i),
            "offset": plan.offset_of(i) - region.offset,
            "region": region,
            "float": slot in floats,
        }
        for slot, i in enumerate(indices)
        for region in (region_at(regions, plan.offset_of(i)),)
    ]
