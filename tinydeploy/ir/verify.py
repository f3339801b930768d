"""Check the invariants of a Graph that every stage may rely on."""

from __future__ import annotations

from tinydeploy.errors import ModelError
from tinydeploy.ir.graph import Graph


def verify_graph(graph: Graph) -> None:
    """Raise ModelError unless every value is produced once, before its first use.

    Checked: indices in range, no cycle (execution order), one producer per tensor, constants and
    graph inputs never written, inputs distinct, outputs produced, constant data of the declared
    shape and type.
    """
    count = len(graph.tensors)
    ready = set(graph.inputs)
    for index in (*graph.inputs, *graph.outputs):
        if not 0 <= index < count:
            raise ModelError(
                "the graph names a tensor that does not exist", f"index {index} of {count}"
            )
    if len(set(graph.inputs)) != len(graph.inputs):
        raise ModelError("the graph names an input twice", f"{list(graph.inputs)}")
    for index in graph.inputs:
        if graph.tensors[index].constant:
            raise ModelError(
                "an input of the graph is a constant", f"'{graph.tensors[index].name}'"
            )
    for index, tensor in enumerate(graph.tensors):
        if tensor.data is not None:
            if tensor.data.shape != tensor.shape or tensor.data.dtype != tensor.dtype.numpy:
                raise ModelError(
                    f"constant tensor {index} does not hold what it declares",
                    f"declared {tensor.dtype.value}{list(tensor.shape)}, "
                    f"holds {tensor.data.dtype}{list(tensor.data.shape)}",
                )
            ready.add(index)
    for position, node in enumerate(graph.nodes):
        where = f"node {position} {node.op}"
        for i in node.inputs:
            if i is not None and not 0 <= i < count:
                raise ModelError(
                    "a node reads a tensor that does not exist", f"index {i}", "", where
                )
            if i is not None and i not in ready:
                raise ModelError(
                    "a node reads a tensor that nothing has produced yet",
                    f"tensor {i} '{graph.tensors[i].name}' is part of a cycle or never written",
                    where=where,
                )
        for i in node.outputs:
            if not 0 <= i < count:
                raise ModelError(
                    "a node writes a tensor that does not exist", f"index {i}", "", where
                )
            if i in ready:
                raise ModelError(
                    "a tensor is written twice, or is an input or a constant",
                    f"tensor {i} '{graph.tensors[i].name}'",
                    where=where,
                )
            ready.add(i)
    for i in graph.outputs:
        if i not in ready:
            raise ModelError("an output of the graph is never produced", f"tensor {i}")
