"""Turn joins and slices into memory plans' work: parts written where the whole wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, Kernel, op_named
from tinydeploy.plan.layout import ALIGNMENT
from tinydeploy.plan.liveness import buffers_of, homes, lower_bound
from tinydeploy.plan.select import Selection


def join_in_memory(
    graph: Graph, profile: IntegerProfile, selection: Selection, streamed: bool = False
) -> Selection:
    """Return the selection without kernels for joins and slices that need no copy.

    A slice becomes part of what it is taken from, the inputs of a join parts of its output. That
    keeps the whole alive from its first part's birth to its last part's death, so it is done only
    where no more bytes are alive at once. Joined rows of images are left to streamed segments.
    """
    able = [
        position
        for position, kernel in enumerate(selection.kernels)
        if kernel is not None
        and op_named(graph.nodes[position].op).inside(Call(graph, graph.nodes[position]))
        and not (streamed and kernel.by_rows and _joins_rows(graph, position))
    ]
    if not able:
        return selection

    def peak(kernels: Sequence[Kernel | None]) -> int:
        chosen = replace(selection, kernels=tuple(kernels))
        return lower_bound(buffers_of(graph, profile, chosen).buffers)

    kernels = list(selection.kernels)
    least = peak(kernels)
    # All at once first: often only one join after another makes it worth.
    for group in [able, *([p] for p in able)]:
        tried = list(kernels)
        for position in group:
            if _joinable(graph, selection, tried, position):
                tried[position] = None
        if tried != kernels and (found := peak(tried)) <= least:
            kernels, least = tried, found
    return replace(selection, kernels=tuple(kernels))


def joined_at(graph: Graph, selection: Selection, positions: Sequence[int]) -> Selection:
    """Return the selection without kernels for the named joins and slices where it is possible."""
    kernels = list(selection.kernels)
    for position in positions:
        node = graph.nodes[position]
        whole = op_named(node.op).inside(Call(graph, node))
        if whole and _joinable(graph, selection, kernels, position):
            kernels[position] = None
    return replace(selection, kernels=tuple(kernels))


def _joins_rows(graph: Graph, position: int) -> bool:
    call = Call(graph, graph.nodes[position])
    return len(call.output.shape) == 4 and call.output.rows > 1 and len(call.inputs) > 1


def _joinable(
    graph: Graph, selection: Selection, kernels: Sequence[Kernel | None], position: int
) -> bool:
    """Tell whether a node's parts can lie where it wants them.

    Each begins at an aligned address and is written at run time; what a join takes is a whole
    tensor or its view, and no part of anything else, not even of the same join.
    """
    node = graph.nodes[position]
    before, everywhere = homes(graph, kernels[:position]), homes(graph, kernels)
    taken: set[int] = set()
    for place in op_named(node.op).inside(Call(graph, node)):
        inner, outer = graph.tensors[place.inner], graph.tensors[place.outer]
        whole, start = before.get(place.inner, (place.inner, 0))
        if (
            place.pitch
            or inner.constant
            or outer.constant
            or place.start % ALIGNMENT
            or whole in taken
            or whole in selection.outside
        ):
            return False
        if place.inner in graph.outputs and place.outer in selection.outside:
            return False
        if not (selection.layout(place.inner).plain and selection.layout(place.outer).plain):
            return False
        if everywhere.get(place.inner, (place.inner, 0)) != (whole, start):
            return False
        if start != 0 or graph.tensors[whole].bytes != inner.bytes:
            return False
        taken.add(whole)
    return True
