"""Turn the offsets of a MemoryPlan into C: which of the caller's memories, and how far into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.ir import Graph
from tinydeploy.plan.layout import MemoryPlan


@dataclass(frozen=True, slots=True)
class Region:
    """Hold a piece of memory that the caller gives: an arena, or an input that is only read.

    `name` is that of its pointer in C; offsets of the plan from `offset` on are in it. `slot` is
    the number of an input, -1 for an arena.
    """

    name: str
    offset: int
    bytes: int
    slot: int = -1


def regions_of(graph: Graph, plan: MemoryPlan) -> tuple[Region, ...]:
    """Return the memories that the caller gives, the first arena first."""
    found = []
    offset = 0
    for k, arena in enumerate(plan.arenas):
        found.append(Region(f"arena{k}" if k else "arena", offset, arena.bytes))
        offset += arena.bytes
    for buffer in plan.outside:
        slot = min(graph.inputs.index(t) for t in buffer.tensors if t in graph.inputs)
        found.append(Region(f"input_{slot}", offset, buffer.bytes, slot))
        offset += buffer.bytes
    return tuple(found)


def region_at(regions: Sequence[Region], offset: int) -> Region:
    """Return the memory that holds an offset of the plan."""
    return max((r for r in regions if r.offset <= offset), key=lambda r: r.offset)


def expression(regions: Sequence[Region], offset: int) -> str:
    """Return the C expression of an address: from the only arena, or from a struct of pointers."""
    if len(regions) == 1:
        return f"arena + {offset}"
    region = region_at(regions, offset)
    return f"m->{region.name} + {offset - region.offset}"
