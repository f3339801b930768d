"""Turn a Graph and its MemoryPlan into a SourceTree of C files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy import __version__
from tinydeploy.codegen import names
from tinydeploy.codegen.render import read, render
from tinydeploy.codegen.sources import SourceTree
from tinydeploy.ir import Graph, Node
from tinydeploy.ir.dump import describe_tensor
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, Kernel, RowSource, op_named
from tinydeploy.plan.layout import MemoryPlan

_C_TYPES = {"int8": "int8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t"}


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

    digest: 16 bytes by which a device names the model it runs; const_bytes: weights and tables.
    """

    name: str
    sources: SourceTree
    digest: bytes
    const_bytes: int


@dataclass(slots=True)
class _Constants:
    """Collect constant arrays, each content once."""

    prefix: str
    by_content: dict[tuple[str, bytes], str] = field(default_factory=dict)
    arrays: list[dict[str, Any]] = field(default_factory=list)

    def name(self, array: NDArray[Any], suggestion: str) -> str:
        key = (array.dtype.name, array.tobytes())
        if key not in self.by_content:
            symbol = f"{self.prefix}_{suggestion}"
            self.by_content[key] = symbol
            self.arrays.append(
                {"symbol": symbol, "type": _C_TYPES[array.dtype.name], "array": array}
            )
        return self.by_content[key]


def generate(
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    provenance: Provenance,
    target: Any = None,
) -> GeneratedModel:
    """Return the C sources of a network: public header, code, kernels, weights, and the adapter
    that the firmware links (`firmware_model.c`).
    """
    name = names.identifier(graph.name)
    constants = _Constants(name)
    steps = [
        _step(graph, plan, profile, position, constants, target)
        for segment in plan.segments
        for position in segment.nodes
    ]
    kernels: dict[str, Kernel] = {s["kernel"].function: s["kernel"] for s in steps}
    shared = {
        "name": name,
        "NAME": name.upper(),
        "version": __version__,
        "provenance": provenance,
        "profile": profile.name,
        "plan": plan,
        "steps": steps,
        "constants": constants.arrays,
        "inputs": _border(graph, plan, graph.inputs, graph.float_inputs),
        "outputs": _border(graph, plan, graph.outputs, graph.float_outputs),
        "kernel_sources": [
            render(f"ops/{template}.c.j2")
            for template in sorted({k.template for k in kernels.values()})
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
    return GeneratedModel(
        name, SourceTree.of(files), digest, sum(c["array"].nbytes for c in constants.arrays)
    )


def _step(
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    position: int,
    constants: _Constants,
    target: Any,
) -> dict[str, Any]:
    """Describe one node for the template: its kernel, parameters, rows and comment."""
    node = graph.nodes[position]
    op, call = op_named(node.op), Call(graph, node)
    kernel = next(k for k in op.kernels if k.accepts(call, target))
    rows = op.rows(call)
    streamable = op.region(call)
    sources = streamable if streamable is not None else _whole(op.inputs(call))
    rows = rows if streamable is not None else 1
    pointers = []
    slot = 0
    for source in sources:
        tensor = call.input(source.input)
        count = tensor.rows if streamable is not None else 1
        base = _base(graph, plan, node, source.input, constants, position)
        pointers.append(_source(source, base, tensor.bytes // count, count, rows, slot,
                                constants, position))  # fmt: skip
        slot += source.taps
    out = call.output
    return {
        "index": position,
        "node": node,
        "op": op,
        "kernel": kernel,
        "params": _initialiser(op.params(call, profile), constants, position),
        "rows": rows,
        "sources": pointers,
        "slots": slot,
        "out_offset": plan.offset_of(node.outputs[0]),
        "out_pitch": out.bytes // rows,
        "scratch": plan.scratch.get(position),
        "reads": [
            f"{describe_tensor(graph.tensors[i])} {_place(graph, plan, i)}"
            for i in (node.inputs[k] for k in op.inputs(call))
            if i is not None
        ],
        "writes": f"{describe_tensor(out)} {_place(graph, plan, node.outputs[0])}",
        "macs": op.macs(call),
    }


def _whole(inputs: tuple[int, ...]) -> tuple[RowSource, ...]:
    return tuple(RowSource(k) for k in inputs)


def _place(graph: Graph, plan: MemoryPlan, index: int) -> str:
    return "constant" if graph.tensors[index].constant else f"at {plan.offset_of(index)}"


def _base(
    graph: Graph, plan: MemoryPlan, node: Node, slot: int, constants: _Constants, position: int
) -> str:
    index = node.inputs[slot]
    data = graph.tensor(index).data
    if data is not None:
        return constants.name(data, f"node{position}_input{slot}")
    assert index is not None
    return f"arena + {plan.offset_of(index)}"


def _source(
    source: RowSource,
    base: str,
    pitch: int,
    count: int,
    rows: int,
    slot: int,
    constants: _Constants,
    position: int,
) -> dict[str, Any]:
    table = ""
    if source.table is not None:
        table = constants.name(np.array(source.table, np.uint16), f"node{position}_rows")
    ends = (source.rows(0) + source.rows(rows - 1)) if rows else [0]
    return {
        "base": base,
        "pitch": pitch,
        "count": count,
        "source": source,
        "slot": slot,
        "table": table,
        "inside": source.taps == 1 and min(ends) >= 0 and max(ends) < count,
    }


def _initialiser(params: Any, constants: _Constants, position: int) -> list[tuple[str, str]]:
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
    graph: Graph, plan: MemoryPlan, indices: tuple[int, ...], floats: frozenset[int]
) -> list[dict[str, Any]]:
    return [
        {
            "index": slot,
            "tensor": graph.tensors[i],
            "text": describe_tensor(graph.tensors[i]),
            "offset": plan.offset_of(i),
            "float": slot in floats,
        }
        for slot, i in enumerate(indices)
    ]
