"""Compute at generation time what depends on constants only."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.errors import ModelError
from tinydeploy.ir import Graph
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.checks import run_checks


def fold_constants(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with every node of constant inputs replaced by its result.

    Raises ModelError when an output of the graph turns out to be constant.
    """
    tensors = list(graph.tensors)
    nodes = []
    for node in graph.nodes:
        arguments = [None if i is None else tensors[i].data for i in node.inputs]
        if any(a is None for a in arguments):
            nodes.append(node)
            continue
        op, call = op_named(node.op), Call(graph.replace(tensors=tuple(tensors)), node)
        run_checks(op, call)
        for i, value in zip(node.outputs, op.reference(call, arguments, profile), strict=True):  # type: ignore[arg-type]
            tensors[i] = replace(tensors[i], data=constant(value))
    for o in graph.outputs:
        if tensors[o].constant:
            raise ModelError("an output of the model is constant", f"'{tensors[o].name}'")
    return graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))
