"""Turn input arrays into every value of the network: in integers, the oracle, or in float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import op_named
from tinydeploy.ops.base import Call

Array = NDArray[Any]


def run_all(graph: Graph, inputs: Sequence[Array], profile: IntegerProfile) -> list[Array]:
    """Return the value of every tensor of the graph, by index.

    `inputs` are integer arrays of the shapes and types of `graph.inputs`.
    """
    values: list[Array | None] = [t.data for t in graph.tensors]
    for index, array in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[index]
        assert array.shape == tensor.shape and array.dtype == tensor.dtype.numpy
        values[index] = array
    empty = np.zeros(0, np.int8)
    for node in graph.nodes:
        arguments = [empty if i is None else values[i] for i in node.inputs]
        results = op_named(node.op).reference(Call(graph, node), arguments, profile)  # type: ignore[arg-type]
        for index, array in zip(node.outputs, results, strict=True):
            values[index] = array
    return [empty if v is None else v for v in values]


def run_floats(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Return the value of every tensor of a float graph, by index.

    `inputs` are float32 arrays of the shapes of `graph.inputs`. Raises ModelError for a node
    that has no meaning on floats.
    """
    empty = np.zeros(0, np.float32)
    values = [empty if t.data is None else t.data for t in graph.tensors]
    for index, array in zip(graph.inputs, inputs, strict=True):
        assert array.shape == graph.tensors[index].shape and array.dtype == np.float32
        values[index] = array
    for node in graph.nodes:
        reference = op_named(node.op).float_reference
        if reference is None:
            raise ModelError(f"{node.op} cannot be computed in float", where=node.name)
        results = reference(
            Call(graph, node), [empty if i is None else values[i] for i in node.inputs]
        )
        for index, array in zip(node.outputs, results, strict=True):
            values[index] = array.astype(np.float32, copy=False)
    return values


def run_outputs(graph: Graph, inputs: Sequence[Array], profile: IntegerProfile) -> list[Array]:
    """Return the graph's outputs only."""
    values = run_all(graph, inputs, profile)
    return [values[i] for i in graph.outputs]


def total_macs(graph: Graph) -> int:
    """Return the multiply-accumulates of one inference."""
    return sum(op_named(n.op).macs(Call(graph, n)) for n in graph.nodes)
