"""Turn a Graph into the best ways to cut it into segments: a front of peak RAM and instructions.

A dynamic program over the cuts between nodes. A segment is one whole node, or a run of nodes
streamed row by row (plan.stream); its size is what is alive while it runs. Peaks of segments
combine by their maximum, instructions by their sum, and of all ways to reach a cut those are kept
that no other beats in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias

from tinydeploy.ops.base import Pace
from tinydeploy.plan.problem import Option, Problem

_KEPT = 24  # ways kept per cut


@dataclass(frozen=True, slots=True)
class Way:
    """Hold a way to execute the nodes up to a cut: bytes at its peak, estimated instructions.

    `cost` is what ways are compared by beside the peak.
    """

    peak: int
    instructions: float
    cost: float
    before: Way | None = None
    option: Option | None = None

    @property
    def stored(self) -> int:
        """Return the bytes that weights take more in flash."""
        return sum(o.stored for o in self.options())

    def options(self) -> list[Option]:
        """Return the segments, first one first."""
        found: list[Option] = []
        way: Way | None = self
        while way is not None and way.option is not None:
            found.append(way.option)
            way = way.before
        return found[::-1]


_Candidate: TypeAlias = tuple[int, float, Way, Option]  # peak, cost, the way before, its end


def front(
    problem: Problem,
    lean: bool = False,
    only: Pace | None = None,
    ram: int | None = None,
    price: float = 0.0,
) -> list[Way]:
    """Return the ways that no other beats in peak and instructions, least RAM first.

    With `ram` only those whose peaks are no more than so many bytes. Flash that weights take more
    costs `price` instructions per byte.
    Where `lean`, instead of instructions the sum counts of what all segments take when what they
    read and what they leave share nothing: few segments, which are placed more easily. `only`
    leaves out segments that have other paces, "tight" where they can.
    """
    reached: list[list[Way]] = [[Way(0, 0.0, 0.0)]]
    for options in problem.options[1:]:
        ways = []
        for o in options:
            if (only == "tight" and o.loose) or (only == "even" and o.paces):
                continue
            if ram is not None and o.bytes > ram:
                continue
            cost = float(o.roomy) if lean else o.instructions + price * o.stored
            ways += [(max(w.peak, o.bytes), w.cost + cost, w, o) for w in reached[o.start]]
        reached.append(
            [Way(p, w.instructions + o.instructions, c, w, o) for p, c, w, o in _best(ways)]
        )
    return reached[-1]


def _best(ways: list[_Candidate]) -> list[_Candidate]:
    """Drop the ways that another one beats; of equal ones the earlier one stays."""
    kept: list[_Candidate] = []
    for way in sorted(ways, key=itemgetter(0, 1)):
        if not kept or way[1] < kept[-1][1]:
            kept.append(way)
    if len(kept) > _KEPT:
        last = len(kept) - 1
        kept = [kept[k * last // (_KEPT - 1)] for k in range(_KEPT)]
    return kept
