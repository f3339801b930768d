"""Rewrite Graphs without changing a result bit, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph
from tinydeploy.ir.dump import describe_tensor
from tinydeploy.ir.verify import verify_graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.base import run_checks
from tinydeploy.passes.border import fold_float_border
from tinydeploy.passes.fold import fold_constants
from tinydeploy.passes.prune import remove_unused

PASSES: tuple[Callable[[Graph, IntegerProfile], Graph], ...] = (
    fold_float_border,
    fold_constants,
    remove_unused,
)


def run_passes(graph: Graph, profile: IntegerProfile) -> Graph:
    """Apply PASSES in order and check the graph's and the operators' invariants after each.

    Raises ModelError when a node remains that no operator accepts, or an input or output that is
    not int8.
    """
    for rewrite in PASSES:
        graph = rewrite(graph, profile)
        verify_graph(graph)
    for node in graph.nodes:
        run_checks(op_named(node.op), Call(graph, node))
    _check_interface(graph)
    return graph


def _check_interface(graph: Graph) -> None:
    """Raise ModelError unless every input and output is int8 with one scale and zero point.

    The operators check the tensors they read; an input may be read by none.
    """
    for what, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in (graph.tensors[i] for i in indices):
            quantization = tensor.quantization
            if tensor.dtype is not DType.INT8 or quantization is None or quantization.per_channel:
                raise ModelError(
                    f"an {what} of the model is not int8 with one scale",
                    f"'{tensor.name}' is {describe_tensor(tensor)}",
                    "quantise the model to int8 before deploying it",
                )
