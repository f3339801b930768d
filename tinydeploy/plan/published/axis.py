"""Turn rows or columns wanted of an image into those needed of what it is computed from.

Axis 0 is that of rows, axis 1 that of columns; what an operator needs is what Op.region and
Op.columns say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, RowSource, op_named

Numbers = NDArray[np.int64]
Spans = dict[int, tuple[Numbers, Numbers]]  # tensor -> first, and one after the last, per part
Source = tuple[int, RowSource]


@lru_cache(maxsize=4096)
def sources(graph: Graph, position: int, axis: int) -> tuple[Source, ...] | None:
    """Return which rows (or columns) of which activations a node needs.

    None when it does not turn images of batch 1 into one, or cannot work on some of them alone.
    """
    node = graph.nodes[position]
    op, call = op_named(node.op), Call(graph, node)
    found = (op.columns if axis else op.region)(call)
    if found is None or op.view or len(node.outputs) != 1 or op.rows(call) != call.output.rows:
        return None
    reads = [(t, s) for s in found if (t := node.inputs[s.input]) is not None]
    reads = [(t, s) for t, s in reads if not graph.tensors[t].constant]
    if {t for t, _ in reads} != set(graph.activation_inputs(node)):
        return None
    images = [graph.tensors[t].shape for t in (*(t for t, _ in reads), *node.outputs)]
    if any(len(shape) != 4 or shape[0] != 1 for shape in images):
        return None
    return tuple(reads)


def size(graph: Graph, tensor: int, axis: int) -> int:
    return graph.tensors[tensor].shape[1 + axis]


def pixel_bytes(graph: Graph, tensor: int) -> int:
    t = graph.tensors[tensor]
    return t.shape[3] * t.dtype.size


def first_of_run(graph: Graph, end: int, axes: Sequence[int]) -> int:
    """Return from which node on all nodes before `end` work along these axes."""
    start = end
    while start and all(sources(graph, start - 1, a) is not None for a in axes):
        start -= 1
    return start


def parts(length: int, step: int) -> tuple[Numbers, Numbers]:
    """Return the first, and one after the last, of parts of `step` each; the last may be less."""
    low = np.arange(0, length, step, dtype=np.int64)
    return low, np.minimum(low + step, length)


def spans(graph: Graph, start: int, end: int, axis: int, wanted: tuple[Numbers, Numbers]) -> Spans:
    """Return what parts of the last output need of each tensor before it, halos included.

    A part that needs nothing of a tensor but padding has an empty span.
    """
    needed: Spans = {graph.nodes[end - 1].outputs[0]: wanted}
    for position in range(end - 1, start - 1, -1):
        own = needed.get(graph.nodes[position].outputs[0])
        reads = sources(graph, position, axis)
        if own is None or reads is None:
            continue
        for tensor, source in reads:
            low, high = _reach(source, *own, size(graph, tensor, axis))
            if tensor in needed:
                known_low, known_high = needed[tensor]
                fresh, stale = high > low, known_high > known_low
                low, high = (
                    np.where(fresh & stale, np.minimum(low, known_low),
                             np.where(fresh, low, known_low)),
                    np.where(fresh & stale, np.maximum(high, known_high),
                             np.where(fresh, high, known_high)),
                )  # fmt: skip
            needed[tensor] = low, high
    return needed


def _reach(source: RowSource, low: Numbers, high: Numbers, length: int) -> tuple[Numbers, Numbers]:
    """Return what spans of the output take of an input of some length, padding left out."""
    if source.table is not None:
        table = np.asarray(source.table, np.int64)
        last = np.maximum(high - 1, low)
        ends = table[np.minimum(low, len(table) - 1)], table[np.minimum(last, len(table) - 1)]
        first, after = np.minimum(*ends), np.maximum(*ends) + 1
    else:
        first = low * source.stride + source.offset
        after = (high - 1) * source.stride + source.offset + (source.taps - 1) * source.dilation + 1
    first = np.minimum(np.maximum(first, 0), length)
    after = np.minimum(np.maximum(after, 0), length)
    return first, np.where(high > low, np.maximum(first, after), first)


@lru_cache(maxsize=512)
def held(graph: Graph, start: int, end: int, axis: int) -> Mapping[int, int]:
    """Return how many rows (or columns) of each tensor must be kept at once, at most.

    The last output is made one row after the other; a row of another tensor is made when one that
    needs it is about to be, and kept for its last reader among the nodes (a line buffer). What
    later nodes read as well is completed at the end.
    """
    maker = {graph.nodes[p].outputs[0]: p for p in range(start, end)}
    readers: dict[int, list[tuple[int, list[int]]]] = {t: [] for t in maker}
    needs: dict[int, list[tuple[int, list[int]]]] = {}
    for t, p in maker.items():
        needs[t] = []
        for tensor, source in sources(graph, p, axis) or ():
            if tensor not in maker:
                continue
            length = size(graph, tensor, axis)
            rows = [source.rows(y) for y in range(size(graph, t, axis))]
            needs[t].append((tensor, [min(max(r) + 1, length) for r in rows]))
            first = [max(min(r), 0) for r in rows] + [length]
            for y in range(len(first) - 2, -1, -1):
                first[y] = min(first[y], first[y + 1])
            readers[tensor].append((t, first))
    made = dict.fromkeys(maker, 0)
    most = dict.fromkeys(maker, 0)

    def make(tensor: int, count: int) -> None:
        while made[tensor] < count:
            y = made[tensor]
            for below, after in needs[tensor]:
                if made[below] < after[y]:
                    make(below, after[y])
            made[tensor] += 1
            lowest = min((first[made[r]] for r, first in readers[tensor]), default=y)
            most[tensor] = max(most[tensor], made[tensor] - min(lowest, y))

    for tensor in reversed(maker):
        make(tensor, size(graph, tensor, axis))
    return most
