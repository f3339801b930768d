"""Rewrite Graphs without changing a result bit, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

from tinydeploy.ir import Graph
from tinydeploy.ir.verify import verify_graph
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.base import run_checks
from tinydeploy.passes import border, prune

PASSES: tuple[Callable[[Graph], Graph], ...] = (border.fold_float_border, prune.remove_unused)


def run_passes(graph: Graph) -> Graph:
    """Apply PASSES in order and check the graph's and the operators' invariants after each.

    Raises ModelError when a node remains that no operator accepts.
    """
    for rewrite in PASSES:
        graph = rewrite(graph)
        verify_graph(graph)
    for node in graph.nodes:
        op = op_named(node.op)
        run_checks(op, Call(graph, node))
    return graph
