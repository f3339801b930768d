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
            node = _table_node(node, maker.inputs[0] or 0, table)
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

    One that reads another becomes the table of both; one of several values that all come from one,
    as x * logistic(x), becomes the table of that one; one that clamps becomes the fused activation
    of what it reads; one that changes nothing becomes a view.
    """
    while True:
        before = [(n.op, n.inputs) for n in graph.nodes]
        graph = remove_unused(_folded(graph, profile), profile)
        if [(n.op, n.inputs) for n in graph.nodes] == before:
            return graph


def _folded(graph: Graph, profile: IntegerProfile) -> Graph:
    nodes = list(graph.nodes)
    makers = {o: p for p, n in enumerate(nodes) for o in n.outputs}
    readers: dict[int, list[int]] = {i: [-1] for i in graph.outputs}
    for position, node in enumerate(nodes):
        for i in dict.fromkeys(i for i in node.inputs if i is not None):
            readers.setdefault(i, []).append(position)
    tables = [_table(graph, node, profile) for node in nodes]
    gone = set()
    for position, own in enumerate(tables):
        node = nodes[position]
        if own is None:
            joined = _joined(graph, node, nodes, makers, tables, profile, readers)
            if joined is not None:
                nodes[position], tables[position] = joined
            continue
        source = _source(graph, node)
        maker = makers.get(source)
        if maker is not None:
            before = tables[maker]
            if before is not None and all(
                u >= 0 and tables[u] is not None for u in readers[source]
            ):
                tables[position] = own = _after(own, before)
                nodes[position] = node = _table_node(node, _source(graph, nodes[maker]), own)
            elif readers[source] == [position] and (
                clamped := _clamped(graph, nodes[maker], node, source, own)
            ):
                nodes[maker] = clamped
                makers[node.outputs[0]] = maker
                gone.add(position)
                continue
        source = _source(graph, node)
        same = graph.tensor(source).quantization == graph.tensors[node.outputs[0]].quantization
        if same and (own == lookup.stored_values()).all():
            shape = NewShape(graph.tensors[node.outputs[0]].shape)
            nodes[position] = replace(node, op="RESHAPE", attributes=shape, inputs=(source,))
    return graph.replace(nodes=tuple(n for p, n in enumerate(nodes) if p not in gone))


def _live(graph: Graph, node: Node) -> list[int]:
    """Return the inputs that are computed at run time, each once."""
    return list(
        dict.fromkeys(i for i in node.inputs if i is not None and not graph.tensors[i].constant)
    )


def _source(graph: Graph, node: Node) -> int:
    """Return the only input of a table that is computed at run time."""
    return _live(graph, node)[0]


def _table(graph: Graph, node: Node, profile: IntegerProfile) -> Table | None:
    """Return what a node makes of each stored value, None if that is not all it depends on."""
    live = _live(graph, node)
    if len(live) != 1:
        return None
    return _computed(graph, node, {live[0]: lookup.stored_values().astype(np.int8)}, profile)


def _computed(
    graph: Graph, node: Node, known: dict[int, Table], profile: IntegerProfile
) -> Table | None:
    """Return what a node makes of inputs that are themselves tables of one value.

    None unless each element depends on those at its place alone: constants must hold one number.
    """
    op, call = op_named(node.op), Call(graph, node)
    if not op.pointwise or not _int8(graph, node.outputs[0]):
        return None
    values = []
    for tensor, index in zip(call.inputs, node.inputs, strict=True):
        if tensor is None or not _int8(graph, index):
            return None
        if tensor.data is None:
            if tensor.shape != call.output.shape:
                return None
            values.append(known[index or 0])
        elif (tensor.data == tensor.data.flat[0]).all():
            values.append(np.full(256, tensor.data.flat[0], np.int8))
        else:
            return None
    return op.reference(call, values, profile)[0]


def _joined(
    graph: Graph,
    node: Node,
    nodes: list[Node],
    makers: dict[int, int],
    tables: list[Table | None],
    profile: IntegerProfile,
    readers: dict[int, list[int]],
) -> tuple[Node, Table] | None:
    """Return a node of several inputs as the table of one value that all of them come from.

    As x * logistic(x). None where there is none, or where it would have to live longer and
    nothing else shorter.
    """
    live = _live(graph, node)
    if len(live) < 2 or not op_named(node.op).pointwise:
        return None
    origins = [_origins(graph, i, nodes, makers, tables) for i in live]
    root = next((i for i in origins[0] if all(i in o for o in origins[1:])), None)
    position = makers[node.outputs[0]]
    if root is None or not (root in live or any(readers[i] == [position] for i in live)):
        return None
    known = {i: o[root] for i, o in zip(live, origins, strict=True)}
    table = _computed(graph, node, known, profile)
    return None if table is None else (_table_node(node, root, table), table)


def _origins(
    graph: Graph,
    tensor: int,
    nodes: list[Node],
    makers: dict[int, int],
    tables: list[Table | None],
) -> dict[int, Table]:
    """Return the tensors that one is a table of, nearest first, with those tables; itself first."""
    found = {tensor: lookup.stored_values().astype(np.int8)}
    while (maker := makers.get(tensor)) is not None and (table := tables[maker]) is not None:
        source = _source(graph, nodes[maker])
        found[source] = _after(found[tensor], table)
        tensor = source
    return found


def _after(second: Table, first: Table) -> Table:
    composed: Table = second[first.astype(np.int64) + 128]
    return composed


def _table_node(node: Node, source: int, table: Table) -> Node:
    """Return a node that computes a node's output from a tensor with a table."""
    return replace(node, op="QUANTIZE", inputs=(source,), attributes=Composed(table.tobytes()))


def _clamped(graph: Graph, maker: Node, node: Node, source: int, table: Table) -> Node | None:
    """Return the maker writing the node's output, None if no fused activation does the same."""
    out = graph.tensors[node.outputs[0]]
    own = activation_of(maker.attributes)
    if own is None or graph.tensor(source).quantization != out.quantization:
        return None
    values = lookup.stored_values()
    wanted = _after(table, np.clip(values, *clamp_range(own, out)).astype(np.int8))
    for name in (own, *_ACTIVATIONS):
        if (wanted == np.clip(values, *clamp_range(name, out))).all():
            attributes = with_activation(maker.attributes, name)
            return replace(maker, outputs=node.outputs, attributes=attributes)
    return None
