"""Turn an integer Graph into one that keeps some tensors between layers as 4- or 2-bit indices.

The values of such a tensor are those of 16 or 4 levels of its own: where its values are dense, so
are the levels, and no scale changes. A tensor is packed behind the node that computes it, and
unpacked before each node that reads it, so that row by row neither takes more than a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.verify import verify_graph
from tinydeploy.ops import narrow, widen
from tinydeploy.ops._levels import BITS, packed_shape
from tinydeploy.quantize.calibrate import Statistics

Reals = NDArray[np.float64]

COUNTS = {bits: count for count, bits in BITS.items()}  # levels by bits


def best_levels(mass: Reals, count: int) -> NDArray[np.int64]:
    """Return the stored values that err least in squares: ascending, `count` of them.

    `mass` has how often each of the 256 stored values occurs, from -128 on. A dynamic program
    over where one level's values end and the next one's begin, as in optimal one-dimensional
    k-means (Wang and Song, "Ckmeans.1d.dp", R Journal 2011); each level is an integer.
    """
    # A little mass everywhere keeps levels apart, and where values could be that none was.
    values, mass = np.arange(-128.0, 128.0), mass + max(mass.sum(), 1.0) * 1e-9
    sums = [np.concatenate([[0.0], np.cumsum(mass * values**k)]) for k in range(3)]
    m0, m1, m2 = (s[None, :] - s[:, None] for s in sums)  # [from, to)
    with np.errstate(invalid="ignore", divide="ignore"):
        level = np.rint(m1 / m0)
        error = m2 - 2 * level * m1 + level**2 * m0
    error[np.tril_indices(257)] = np.inf
    least, begins = error[0], []
    for _ in range(count - 1):
        total = least[:, None] + error
        begins.append(total.argmin(axis=0))
        least = total.min(axis=0)
    ends = [256]
    for begin in reversed(begins):
        ends.append(int(begin[ends[-1]]))
    edges = [0, *reversed(ends)]
    return np.array([level[a, b] for a, b in pairwise(edges)], np.int64)


def stored_mass(stats: Statistics, q: Quantization) -> Reals:
    """Return how often each int8 value stands for one of a tensor's values."""
    stored = np.clip(np.rint(stats.centres / q.scale) + q.zero_point, -128, 127).astype(int)
    return np.bincount(stored + 128, stats.counts, 256).astype(np.float64)


def levels_of(stats: Statistics, q: Quantization, bits: int) -> NDArray[np.int64]:
    """Return the best levels of a tensor."""
    return best_levels(stored_mass(stats, q), COUNTS[bits])


def can_narrow(graph: Graph) -> list[int]:
    """Return the tensors that could be kept narrow: between two nodes, with several rows."""
    border = {*graph.inputs, *graph.outputs}
    read = {i for n in graph.nodes for i in n.inputs}
    return [
        o
        for n in graph.nodes
        for o in n.outputs
        if o not in border and o in read and graph.tensors[o].rows > 1
        and n.op not in ("NARROW", "WIDEN")
    ]  # fmt: skip


def narrowed(graph: Graph, statistics: Mapping[int, Statistics], bits: Mapping[int, int]) -> Graph:
    """Return the graph with some tensors packed, by index; those that are added come last.

    `statistics` are of the real values of those tensors.
    """
    if not bits:
        return graph
    tensors, nodes = list(graph.tensors), []
    levels: dict[int, bytes] = {}
    packed: dict[int, int] = {}
    for node in graph.nodes:
        inputs = list(node.inputs)
        for slot, i in enumerate(inputs):
            if i in packed and i not in inputs[:slot]:
                wide = len(tensors)
                tensors.append(replace(tensors[i], name=f"{tensors[i].name}_wide"))
                about = widen.Attributes(levels[i], tensors[i].shape)
                nodes.append(Node(tensors[wide].name, "WIDEN", (packed[i],), (wide,), about))
                inputs = [wide if k == i else k for k in inputs]
        nodes.append(replace(node, inputs=tuple(inputs)))
        for o in node.outputs:
            if o in bits:
                t = tensors[o]
                assert t.quantization is not None
                values = levels_of(statistics[o], t.quantization, bits[o])
                levels[o] = values.astype(np.int8).tobytes()
                packed[o] = len(tensors)
                name, shape = f"{t.name}_narrow", packed_shape(t.shape, bits[o])
                tensors.append(Tensor(name, shape, DType.INT8))
                about_levels = narrow.Attributes(levels[o])
                nodes.append(Node(name, "NARROW", (o,), (packed[o],), about_levels))
    found = graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))
    verify_graph(found)
    return found
