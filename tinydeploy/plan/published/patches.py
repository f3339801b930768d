"""Turn the first nodes of a Graph into 2-D patches that are computed one after the other."""

from __future__ import annotations

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.plan.published import axis
from tinydeploy.plan.published.axis import Numbers
from tinydeploy.plan.published.lives import layer_bytes, lives_of, macs_of, overwritten
from tinydeploy.plan.published.schedule import Piece, Schedule, best, layer_pieces

NAME = "2-D patches"


def plan(graph: Graph, mac_factor: float = 1.5, input_counted: bool = True) -> Schedule:
    """Return the best cut and grid of patches at up to `mac_factor` times the MACs.

    MCUNetV2 (Lin et al., NeurIPS 2021, section 3.1): the nodes before the cut run once for each
    patch of the tensor at the cut, on all that the patch depends on (halos are computed again by
    each patch); the nodes behind it run layer by layer. Counted while patches run: the network's
    input, whole, read where it lies (there is no copy of a patch of it); the tensor at the cut,
    whole; of the tensors between them the part one patch needs, from its node to its last reader
    (depthwise and element-wise in place, see lives.overwritten). Residual blocks may lie in front
    of the cut but not around it. Not counted: kernels' own memory, gaps between buffers.
    """
    budget = (mac_factor - 1) * sum(macs_of(graph)) + 1e-6
    pieces = layer_pieces(graph)
    for end in range(1, len(graph.nodes) + 1):
        if can_cut(graph, end):
            pieces += _grids(graph, end, budget)
    return best(NAME, graph, pieces, mac_factor, input_counted)


def can_cut(graph: Graph, end: int) -> bool:
    """Tell whether the nodes before `end` leave one image, and can work on parts of it."""
    lives = lives_of(graph)
    last = graph.nodes[end - 1].outputs[0]
    return axis.first_of_run(graph, end, (0, 1)) == 0 and lives.leaving(0, end) == [last]


def piece(graph: Graph, end: int, grid: tuple[int, int]) -> Piece:
    """Return the nodes before `end` in patches, `grid` many down and across.

    Raises ValueError where they cannot be computed so.
    """
    if not can_cut(graph, end):
        raise ValueError(f"the nodes before {end} cannot be computed in patches")
    last = graph.nodes[end - 1].outputs[0]
    steps = [-(-axis.size(graph, last, a) // n) for a, n in enumerate(grid)]
    extents = [_extents(graph, end, a, step) for a, step in enumerate(steps)]
    return _piece(graph, end, extents[0], extents[1])


def _grids(graph: Graph, end: int, budget: float) -> list[Piece]:
    """Return all grids of patches of one size that stay within a number of extra MACs."""
    last = graph.nodes[end - 1].outputs[0]
    ways = []
    for a in (0, 1):
        length = axis.size(graph, last, a)
        steps = sorted({-(-length // n) for n in range(1, length + 1)})
        ways.append([_extents(graph, end, a, step) for step in steps])
    return [
        _piece(graph, end, rows, columns)
        for rows in ways[0]
        for columns in ways[1]
        if len(rows) * len(columns) > 1 and _extra(graph, rows, columns) <= budget
    ]


def _extents(graph: Graph, end: int, a: int, step: int) -> Numbers:
    """Return, per part and node, how many rows (or columns) of the node's output are computed."""
    last = graph.nodes[end - 1].outputs[0]
    wanted = axis.parts(axis.size(graph, last, a), step)
    needed = axis.spans(graph, 0, end, a, wanted)
    nothing = np.zeros_like(wanted[0]), np.zeros_like(wanted[0])
    both = [needed.get(n.outputs[0], nothing) for n in graph.nodes[:end]]
    return np.stack([high - low for low, high in both], axis=1)


def _extra(graph: Graph, rows: Numbers, columns: Numbers) -> int:
    """Return the MACs of all patches beyond those of the nodes at once."""
    extra = 0
    computed = (rows.sum(axis=0) * columns.sum(axis=0)).tolist()
    for node, macs, pixels in zip(graph.nodes, macs_of(graph), computed, strict=False):
        _, height, width, _ = graph.tensors[node.outputs[0]].shape
        extra += macs * pixels // (height * width) - macs
    return extra


def _piece(graph: Graph, end: int, rows: Numbers, columns: Numbers) -> Piece:
    lives = lives_of(graph)
    how = f"{len(rows)} x {len(columns)} patches"
    if len(rows) == len(columns) == 1:  # one patch is the network itself, its result no other one
        layers = [layer_bytes(lives, p) for p in range(end)]
        return Piece(0, end, (max(c for c, _ in layers), max(e for _, e in layers)), 0, how)
    outs = [n.outputs[0] for n in graph.nodes[:end]]
    kinds = np.unique(rows, axis=0), np.unique(columns, axis=0)
    pixels = np.array([axis.pixel_bytes(graph, t) for t in outs], np.int64)
    size = kinds[0][:, None, :] * kinds[1][None, :, :] * pixels  # [row part, column part, node]
    peak = 0
    for step in range(end):
        # The last output goes where it lies whole.
        alive = [p for p in range(end - 1) if p <= step <= lives.read[outs[p]]]
        total = size[:, :, alive].sum(axis=2)
        under = overwritten(lives, step)
        if step < end - 1 and under in outs:
            total = total - np.minimum(size[:, :, step], size[:, :, outs.index(under)])
        peak = max(peak, int(total.max(initial=0)))
    counted, elsewhere = lives.count(lives.whole(0, end))
    return Piece(0, end, (counted + peak, elsewhere + peak), _extra(graph, rows, columns), how)
