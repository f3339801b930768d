"""Drop nodes whose results nobody reads, and tensors that nothing refers to."""

from __future__ import annotations

from tinydeploy.ir import Graph
from tinydeploy.ir.used import used
from tinydeploy.numerics.profile import IntegerProfile


def remove_unused(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph without dead nodes; tensors are renumbered in order of appearance."""
    return used(graph)
