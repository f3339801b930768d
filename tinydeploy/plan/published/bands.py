"""Turn parts of a Graph into bands of rows or columns, with what was computed kept along them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.plan.published import axis
from tinydeploy.plan.published.axis import Numbers
from tinydeploy.plan.published.lives import lives_of, macs_of
from tinydeploy.plan.published.schedule import Piece, Schedule, best, layer_pieces

ONE_AXIS = "column-cached bands"
TWO_AXES = "both axes cached"
BLOCKS = "fused blocks"

_HIGHEST = 8  # rows (or columns) of the last output in a band
_LINES = ("row", "column")


def one_axis(graph: Graph, mac_factor: float = 1.5, input_counted: bool = True) -> Schedule:
    """Return the best cut and band at up to `mac_factor` times the MACs, columns cached.

    StreamNet-1D (Zheng et al., NeurIPS 2023; the paper's text was not at hand: this is our reading
    of its abstract). The nodes before the cut run band by band, a band being 1 to 8 rows of the
    tensor at the cut and their halos; within a band they advance column by column and keep, of
    each tensor between, only the columns that are still needed. Halo rows are computed again by
    each band. Bands of columns with cached rows are tried as well. Counted while bands run: the
    network's input, whole, read where it lies; the tensor at the cut, whole; of each tensor
    between, band rows with halo x columns held x channels (a kernel's k columns, 1 for pointwise,
    more where a residual branch waits). Behind the cut: layer by layer, in place. Not counted:
    kernels' own memory, gaps between buffers.
    """
    found = layer_pieces(graph) + pieces(graph, first=True, both=False)
    return best(ONE_AXIS, graph, found, mac_factor, input_counted)


def two_axes(graph: Graph, mac_factor: float = 1.5, input_counted: bool = True) -> Schedule:
    """Return the best cut and band with nothing computed twice.

    StreamNet-2D (Zheng et al., NeurIPS 2023; our reading, as for `one_axis`). As `one_axis`, but
    the halo rows of a band that the next one needs are kept as well: of each tensor between
    input and cut there are the halo rows, full width, and new rows x columns held. Each pixel is
    computed once.
    """
    found = layer_pieces(graph) + pieces(graph, first=True, both=True)
    return best(TWO_AXES, graph, found, mac_factor, input_counted)


def blocks(graph: Graph, mac_factor: float = 1.5, input_counted: bool = True) -> Schedule:
    """Return the best chain of fused blocks and single layers at up to `mac_factor` the MACs.

    msf-CNN (Huang and Baccelli, NeurIPS 2025, arXiv 2505.11483, with its released analysis): any
    run of nodes may be a fused block with an "H-cache", columns kept and rows computed again, as
    in `one_axis`; a shortest path over cut points chooses blocks. Counted: a block's input and
    output, whole, other tensors that wait, and its column caches. The released code also counts
    a window of the block's input, which lies there whole (kernel columns x band rows x channels;
    99 bytes on MCUNet-VWW's first block), lets a band be one row only, knows no residual sums, and
    does not count the network's own input; single layers are in place here.
    """
    found = layer_pieces(graph) + pieces(graph, first=False, both=False)
    return best(BLOCKS, graph, found, mac_factor, input_counted)


def pieces(graph: Graph, first: bool, both: bool) -> list[Piece]:
    """Return runs of nodes in bands; `first`: only those that begin the network."""
    lives = lives_of(graph)
    found = []
    for end in range(2, len(graph.nodes) + 1):
        earliest = axis.first_of_run(graph, end, (0, 1))
        last = graph.nodes[end - 1].outputs[0]
        starts = [s for s in range(earliest, end - 1) if lives.leaving(s, end) == [last]]
        starts = [s for s in starts if s == 0] if first else starts
        if not starts:
            continue
        whole = [lives.count(lives.whole(s, end)) for s in starts]
        for a in (0, 1):
            length = axis.size(graph, last, a)
            columns = axis.held(graph, starts[0], end, 1 - a)
            for step in range(1, min(_HIGHEST, length // 2) + 1):
                how = f"{-(-length // step)} bands of {step} {_LINES[a]}{'s' * (step > 1)}"
                buffers, extra = _bands(graph, starts[0], end, a, step, columns, both)
                for s, (counted, elsewhere) in zip(starts, whole, strict=True):
                    own, more = buffers[s - starts[0]], extra[s - starts[0]]
                    found.append(Piece(s, end, (counted + own, elsewhere + own), more, how))
    return found


def _bands(
    graph: Graph, start: int, end: int, a: int, step: int, columns: Mapping[int, int], both: bool
) -> tuple[list[int], list[int]]:
    """Return buffers in bytes and extra MACs of the nodes before `end` from each one on."""
    wanted = axis.parts(axis.size(graph, graph.nodes[end - 1].outputs[0], a), step)
    needed = axis.spans(graph, start, end, a, wanted)
    nothing = np.zeros_like(wanted[0])
    buffers, extra = [], []
    alive, more = nothing, 0
    for position in range(end - 1, start - 1, -1):
        t = graph.nodes[position].outputs[0]
        low, high = needed.get(t, (nothing, nothing))
        new, halo = (_cached if both else _again)(low, high)
        length, width = axis.size(graph, t, a), axis.size(graph, t, 1 - a)
        if position < end - 1:  # the last output lies whole
            alive = alive + (halo * width + new * columns[t]) * axis.pixel_bytes(graph, t)
        macs = macs_of(graph)[position]
        more += macs * int(new.sum()) // length - macs
        buffers.append(int(alive.max()))
        extra.append(more)
    return buffers[::-1], extra[::-1]


def _again(low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Return per band the rows that are computed and those kept of the one before: all, none."""
    return high - low, np.zeros_like(low)


def _cached(low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Return per band the rows that are computed and those kept from band to band."""
    before = np.append(0, np.maximum.accumulate(high)[:-1])
    new = high - np.maximum(low, np.minimum(before, high))
    left = np.append(np.maximum(high[:-1] - np.maximum(low[1:], low[:-1]), 0), 0)
    return new, np.maximum(left, np.append(0, left[:-1]))
