"""Hold a memory plan as a value: buffers with lifetimes and offsets, and the segments that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ops.base import Pace
from tinydeploy.plan.select import Selection

ALIGNMENT = 4

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Reserve `bytes` of the arena from step `first` to step `last`, both included.

    Several tensors share a buffer when one is part of another or overwrites it in place. `starts`
    says where in the buffer each begins, in bytes; empty when all begin with it. `label` is for
    people. Step -1 is before the first node (inputs), step n after the last.
    """

    label: str
    tensors: tuple[int, ...]
    bytes: int
    first: int
    last: int
    starts: tuple[int, ...] = ()

    def start_of(self, tensor: int) -> int:
        """Return where in the buffer a tensor begins, in bytes."""
        return self.starts[self.tensors.index(tensor)] if self.starts else 0


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Hold bytes that lie together; a piece is (start, end, first call, last call), all [n, 4]."""

    label: str
    bytes: int
    pieces: Rows


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """Hold all items of a plan, those of its buffers first, and where rows are in them.

    rows: per tensor that only a streamed segment knows, the (item, start) of each of its rows;
    held: how many of them are needed at a time; lives: (row, first call, last call), all [n, 3],
    without those of other tensors that have the same place before or after.
    alive: bytes in use at each call; `calls`: by its first node, a segment's first and one after
    its last.
    """

    items: tuple[Item, ...] = ()
    rows: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    held: Mapping[int, int] = field(default_factory=dict)
    alive: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    calls: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    lives: Mapping[int, Rows] = field(default_factory=dict)

    @property
    def bound(self) -> int:
        """Return the largest number of bytes in use at one call: no arena can be smaller."""
        return int(self.alive.max(initial=0))

    def most(self, node: int) -> int:
        """Return the most bytes in use while the segment runs that begins with a node."""
        first, end = self.calls[node]
        return int(self.alive[first:end].max(initial=0))


@dataclass(frozen=True, slots=True)
class Segment:
    """Run nodes together: one whole node ("layer"), or several row by row ("streamed").

    `feeds` are inputs of the network that arrive row by row. `calls` says of a streamed segment
    which of the feeds and then the nodes is called next, for its next band of rows. `paces` are
    those of the nodes, all "even" where there are none.
    """

    kind: str
    nodes: tuple[int, ...]
    calls: tuple[int, ...] = ()
    feeds: tuple[int, ...] = ()
    paces: tuple[Pace, ...] = ()


@dataclass(frozen=True, slots=True)
class Arena:
    """Name the memory that holds an arena ("" where the board file says so), and its bytes."""

    memory: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Place every buffer in one arena, or in several one behind the other.

    offsets: of the buffers, and after them of the rows that only streamed segments know (as items,
    see plan.items).
    arena_bytes: the size of all arenas, inputs and outputs included.
    lower_bound_bytes: no plan of these lifetimes can be smaller (largest sum alive at one step,
    or what the solver proved).
    optimal: the arena equals the bound.
    items: what was placed, and when it is in use.
    scratch, pad_rows, accumulators: the buffer per node that needs scratch memory, a row of zero
    points or sums that outlive a call.
    selection: the kernels and layouts the plan was made for.
    streamed_input: the inputs are read piece by piece while the network runs.
    outside: inputs that the caller keeps in memory that is only read, such as flash. Their offsets
    go on where the arena ends.
    several: the arenas, where there is more than one memory (plan.memories). Offsets count through
    all of them, in this order; no buffer lies in two.
    """

    buffers: tuple[Buffer, ...]
    offsets: tuple[int, ...]
    segments: tuple[Segment, ...]
    scratch: dict[int, int]
    pad_rows: dict[int, int]
    accumulators: dict[int, int]
    arena_bytes: int
    lower_bound_bytes: int
    allocator: str
    steps: int
    selection: Selection
    streamed_input: bool = False
    outside: tuple[Buffer, ...] = ()
    several: tuple[Arena, ...] = ()
    items: Items = field(default_factory=Items, compare=False, repr=False)

    @property
    def arenas(self) -> tuple[Arena, ...]:
        """Return the arenas, of which there is at least one."""
        return self.several or (Arena("", self.arena_bytes),)

    def within(self, offset: int) -> tuple[str, int]:
        """Return the memory that holds an offset, and the offset in its own arena."""
        start = 0
        for arena in self.arenas[:-1]:
            if offset < start + arena.bytes:
                return arena.memory, offset - start
            start += arena.bytes
        return self.arenas[-1].memory, offset - start

    @property
    def input(self) -> Literal["ram", "flash", "streamed"]:
        """Say where the inputs come from."""
        if self.streamed_input:
            return "streamed"
        return "flash" if self.outside else "ram"

    @property
    def optimal(self) -> bool:
        return self.arena_bytes <= self.lower_bound_bytes

    def occupied(self, step: int) -> int:
        """Return the most bytes of the arena that are in use while the segment of a step runs."""
        return next((self.items.most(s.nodes[0]) for s in self.segments if step in s.nodes), 0)

    def row_offsets(self, tensor: int) -> tuple[int, ...]:
        """Return the byte offset of each row of a tensor that only a streamed segment knows, while
        that row is needed; raises KeyError for any other.
        """
        return tuple(self.offsets[k] + at for k, at in self.items.rows[tensor])

    def own_offset(self, buffers: Mapping[int, int], position: int) -> int | None:
        """Return the byte offset of what a node has for itself: `scratch`, for example."""
        return self.offsets[buffers[position]] if position in buffers else None

    def offset_of(self, tensor: int) -> int:
        """Return the byte offset of a tensor, of its first row where rows have places of their own;
        raises KeyError for a constant.
        """
        for buffer, offset in zip(self.buffers, self.offsets, strict=False):
            if tensor in buffer.tensors:
                return offset + buffer.start_of(tensor)
        end = self.arena_bytes
        for buffer in self.outside:
            if tensor in buffer.tensors:
                return end + buffer.start_of(tensor)
            end += buffer.bytes
        return self.row_offsets(tensor)[0]


def aligned(size: int, alignment: int = ALIGNMENT) -> int:
    """Round a size in bytes up to the alignment."""
    return -(-size // alignment) * alignment


def dump_plan(plan: MemoryPlan) -> str:
    """Return one line per segment and per buffer, for people and golden files."""
    lines = [f"arena {plan.arena_bytes} bound {plan.lower_bound_bytes} {plan.allocator}"]
    lines += [f"  in {a.memory} {a.bytes}" for a in plan.several]
    lines += [f"  {s.kind} {' '.join(map(str, s.nodes))}" for s in plan.segments]
    for buffer, offset in zip(plan.buffers, plan.offsets, strict=False):
        places = ((t, buffer.start_of(t)) for t in buffer.tensors)
        tensors = " ".join(f"%{t}" + (f"+{s}" if s else "") for t, s in places) or buffer.label
        lines.append(
            f"  {offset:>8} +{buffer.bytes:<8} steps {buffer.first} to {buffer.last}  {tensors}"
        )
    for t in sorted(plan.items.rows):
        lines.append(f"  rows of %{t} at {' '.join(map(str, plan.row_offsets(t)))}")
    lines += [f"  outside {b.bytes}  {' '.join(f'%{t}' for t in b.tensors)}" for b in plan.outside]
    return "\n".join(lines) + "\n"
