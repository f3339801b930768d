"""Turn pieces of a network, each run in some way, into the schedule with the lowest peak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.ir import Graph
from tinydeploy.plan.published.lives import Pair, layer_bytes, lives_of, macs_of


@dataclass(frozen=True, slots=True)
class Piece:
    """Run the nodes from `start` to before `end` together; the bytes alive meanwhile, at most.

    bytes: all whole tensors that live then and the method's own buffers, with the network's inputs
    counted and without. extra: multiply-accumulates beyond those of running each node once. `how`
    says so to people, "" for a single node run whole.
    """

    start: int
    end: int
    bytes: Pair
    extra: int = 0
    how: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Describe how a published method would run a network.

    arena_bytes: activations at the peak, with the network's inputs in RAM; without_input: the same
    schedule where they are elsewhere (flash, a camera). Bytes alive are counted: no gaps between
    buffers, no memory of the kernels' own. mac_factor: executed over the network's own.
    """

    method: str
    arena_bytes: int
    without_input: int
    mac_factor: float
    pieces: tuple[Piece, ...]

    @property
    def parameters(self) -> str:
        """Say where the network is cut and how the parts run."""
        own = [p for p in self.pieces if p.how]
        return "; ".join(f"{p.start}-{p.end - 1}: {p.how}" for p in own) or "layer by layer"


def layer_pieces(graph: Graph) -> list[Piece]:
    """Return each node run by itself."""
    lives = lives_of(graph)
    return [Piece(p, p + 1, layer_bytes(lives, p)) for p in range(len(graph.nodes))]


def best(
    method: str, graph: Graph, pieces: Sequence[Piece], mac_factor: float, input_counted: bool
) -> Schedule:
    """Return the schedule with the lowest peak at up to `mac_factor` times the MACs.

    Among those of the lowest peak, the one with fewest MACs, then with fewest nodes run together.
    Every node must have a piece of its own that costs nothing extra. The search over a path of cut
    points is that of msf-CNN (arXiv 2505.11483, minimise the peak under a limit of MACs).
    """
    total = sum(macs_of(graph))
    budget = math.floor((mac_factor - 1) * total + 1e-6)
    which = 0 if input_counted else 1
    limits = sorted({p.bytes[which] for p in pieces})
    low, high = 0, len(limits) - 1
    found = _cheapest(len(graph.nodes), pieces, which, limits[high])
    assert found is not None
    while low < high:
        middle = (low + high) // 2
        path = _cheapest(len(graph.nodes), pieces, which, limits[middle])
        if path is not None and sum(p.extra for p in path) <= budget:
            high, found = middle, path
        else:
            low = middle + 1
    executed = total + sum(p.extra for p in found)
    return Schedule(
        method,
        max(p.bytes[0] for p in found),
        max(p.bytes[1] for p in found),
        executed / total if total else 1.0,
        tuple(found),
    )


def _cheapest(count: int, pieces: Sequence[Piece], which: int, limit: int) -> list[Piece] | None:
    """Return the path of fewest MACs through pieces of at most `limit` bytes, None if none is."""
    ending: dict[int, list[Piece]] = {}
    for p in pieces:
        if p.bytes[which] <= limit:
            ending.setdefault(p.end, []).append(p)
    cost: dict[int, tuple[int, int]] = {0: (0, 0)}
    last: dict[int, Piece] = {}
    for end in range(1, count + 1):
        for p in ending.get(end, ()):
            if p.start in cost:
                extra, together = cost[p.start]
                own = extra + p.extra, together + (p.end - p.start if p.how else 0)
                if end not in cost or own < cost[end]:
                    cost[end], last[end] = own, p
    if count not in cost:
        return None
    path: list[Piece] = []
    at = count
    while at:
        path.append(last[at])
        at = last[at].start
    return path[::-1]
