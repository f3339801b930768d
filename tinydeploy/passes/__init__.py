"""Rewrite Graphs without changing a result bit, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from tinydeploy.ir import Graph
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

    Raises ModelError when a node remains that no operator accepts.
    """
    for rewrite in PASSES:
        graph = rewrite(graph, profile)
        verify_graph(graph)
    for node in graph.nodes:
        run_checks(op_named(node.op), Call(graph, node))
    return graph
