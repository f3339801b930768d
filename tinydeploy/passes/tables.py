"""Fold functions of one value: chains into one table, clamps into what computes their input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType, Graph, Node
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops import _lookup as lookup
from tinydeploy.ops._window import activation_of, clamp_range, with_activation
from tinydeploy.ops.quantize import Attributes as Composed
from tinydeploy.ops.reshape import Attributes as NewShape
from tinydeploy.passes.prune import remove_unused

Table = NDArray[np.int8]  # [256], what becomes of each stored value

_ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")


def fold_float_pairs(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with each DEQUANTIZE that a QUANTIZE reads folded into it.

    The table holds what the two compute of each of the 256 values.
    """
    makers = {n.outputs[0]: n for n in graph.nodes if n.op == "DEQUANTIZE"}
    nodes = []
    for node in graph.nodes:
        maker = makers.get(node.inputs[0] or 0) if node.op == "QUANTIZE" else None
        if maker is not None and _int8(graph, maker.inputs[0]) and _int8(graph, node.outputs[0]):
            source, out = graph.tensor(maker.inputs[0]), graph.tensors[node.outputs[0]]
            stored = lookup.stored_values().astype(np.int8)
            real = dequantize(stored, source.scale, source.zero_point)
            table = quantize_float(real, out.scale, out.zero_point, "int8")
            node = _table_node(node, maker, table)
        nodes.append(node)
    read = {i for n in nodes for i in n.inputs} | set(graph.outputs)
    return graph.replace(
        nodes=tuple(n for n in nodes if n.op != "DEQUANTIZE" or n.outputs[0] in read)
    )


def _int8(graph: Graph, index: int | None) -> bool:
    tensor = graph.tensor(index)
    q = tensor.quantization
    return tensor.dtype is DType.INT8 and q is not None and not q.per_channel


def fold_tables(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with fewer functions of one value.

    One that reads another becomes the table of both; one that clamps becomes the fused activation
    of what it reads; one that changes nothing becomes a view.
    """
    while True:
        before = len(graph.nodes)
        graph = remove_unused(_folded(graph, profile), profile)
        if len(graph.nodes) == before:
            return graph


def _folded(graph: Graph, profile: IntegerProfile) -> Graph:
    nodes = list(graph.nodes)
    makers = {o: p for p, n in enumerate(nodes) for o in n.outputs}
    readers: dict[int, list[int]] = {i: [-1] for i in graph.outputs}
    for position, node in enumerate(nodes):
        for i in node.inputs:
            if i is not None:
                readers.setdefault(i, []).append(position)
    tables = [_table(graph, node, profile) for node in nodes]
    gone = set()
    for position, own in enumerate(tables):
        if own is None:
            continue
        node, source = nodes[position], nodes[position].inputs[0] or 0
        maker = makers.get(source)
        if maker is not None:
            before = tables[maker]
            if before is not None and all(
                u >= 0 and tables[u] is not None for u in readers[source]
            ):
                tables[position] = own = _after(own, before)
                nodes[position] = node = _table_node(node, nodes[maker], own)
            elif readers[source] == [position] and (
                clamped := _clamped(graph, nodes[maker], node, own)
            ):
                nodes[maker] = clamped
                makers[node.outputs[0]] = maker
                gone.add(position)
                continue
        same = (
            graph.tensor(node.inputs[0]).quantization == graph.tensors[node.outputs[0]].quantization
        )
        if same and (own == lookup.stored_values()).all():
            shape = NewShape(graph.tensors[node.outputs[0]].shape)
            nodes[position] = replace(node, op="RESHAPE", attributes=shape)
    return graph.replace(nodes=tuple(n for p, n in enumerate(nodes) if p not in gone))


def _table(graph: Graph, node: Node, profile: IntegerProfile) -> Table | None:
    """Return what a node makes of each stored value, None if that is not all it depends on."""
    op = op_named(node.op)
    if not op.kernels or op.kernels[-1].template != "lookup":
        return None
    found: Table = op.params(Call(graph, node), profile).table
    return found


def _after(second: Table, first: Table) -> Table:
    composed: Table = second[first.astype(np.int64) + 128]
    return composed


def _table_node(node: Node, first: Node, table: Table) -> Node:
    """Return a node that computes of the first one's input what both compute in turn."""
    return replace(
        node, op="QUANTIZE", inputs=first.inputs[:1], attributes=Composed(table.tobytes())
    )


def _clamped(graph: Graph, maker: Node, node: Node, table: Table) -> Node | None:
    """Return the maker writing the node's output, None if no fused activation does the same."""
    out = graph.tensors[node.outputs[0]]
    own = activation_of(maker.attributes)
    if own is None or graph.tensor(node.inputs[0]).quantization != out.quantization:
        return None
    values = lookup.stored_values()
    wanted = _after(table, np.clip(values, *clamp_range(own, out)).astype(np.int8))
    for name in (own, *_ACTIVATIONS):
        if (wanted == np.clip(values, *clamp_range(name, out))).all():
            attributes = with_activation(maker.attributes, name)
            return replace(maker, outputs=node.outputs, attributes=attributes)
    return None
