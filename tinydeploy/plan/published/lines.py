"""Turn runs of a Graph into row streaming: rings of rows, one ring for each tensor."""

from __future__ import annotations

from tinydeploy.ir import Graph
from tinydeploy.plan.published import axis
from tinydeploy.plan.published.lives import lives_of
from tinydeploy.plan.published.schedule import Piece, Schedule, best, layer_pieces

NAME = "line buffers"


def plan(graph: Graph, mac_factor: float = 1.0, input_counted: bool = True) -> Schedule:
    """Return the best runs of nodes that work row by row, each tensor between in its own ring.

    Line buffers as hardware generators size them (ImaGen, Ujjainkar et al., ISCA 2023,
    arXiv 2304.03352): a ring holds the rows that are still needed, a kernel's height or the delay
    of a residual sum. Counted: a run's inputs and outputs and all that waits, whole, and the rings;
    no ring shares memory with another or with a whole tensor. Nothing is computed twice. Nodes
    outside of runs: layer by layer, in place. Not counted: kernels' own memory, gaps.
    """
    return best(NAME, graph, layer_pieces(graph) + pieces(graph), mac_factor, input_counted)


def pieces(graph: Graph) -> list[Piece]:
    """Return every run of two or more nodes that can work row by row."""
    lives = lives_of(graph)
    found = []
    for end in range(2, len(graph.nodes) + 1):
        earliest = axis.first_of_run(graph, end, (0,))
        if end - earliest < 2:
            continue
        rows = axis.held(graph, earliest, end, 0)
        for start in range(earliest, end - 1):
            outs = [n.outputs[0] for n in graph.nodes[start:end]]
            inner = [t for t in outs if lives.inner(t, start, end)]
            rings = sum(rows[t] * graph.tensors[t].row_bytes for t in inner)
            counted, elsewhere = lives.count(lives.whole(start, end))
            found.append(Piece(start, end, (counted + rings, elsewhere + rings), 0, "row by row"))
    return found
