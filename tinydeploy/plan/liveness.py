"""Turn a Graph into buffers with lifetimes, sharing them for parts and in-place operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, op_named
from tinydeploy.plan.layout import Buffer, aligned
from tinydeploy.plan.select import Selection


def executed(graph: Graph, selection: Selection | None = None) -> tuple[int, ...]:
    """Return the positions of the nodes that do work: all but those that memory alone does."""
    if selection is None:
        return tuple(p for p, n in enumerate(graph.nodes) if not op_named(n.op).view)
    return tuple(p for p, kernel in enumerate(selection.kernels) if kernel is not None)


def homes(graph: Graph, kernels: Sequence[Kernel | None]) -> dict[int, tuple[int, int]]:
    """Return the tensors that are part of another: tensor -> (the largest, bytes from its start).

    Nodes without a kernel say so: views, slices and joins. `kernels` may be those of the first
    nodes only.
    """
    outer: dict[int, tuple[int, int]] = {}

    def resolve(tensor: int) -> tuple[int, int]:
        start = 0
        while tensor in outer:
            tensor, inside = outer[tensor]
            start += inside
        return tensor, start

    for node, kernel in zip(graph.nodes[: len(kernels)], kernels, strict=True):
        for place in op_named(node.op).inside(Call(graph, node)) if kernel is None else ():
            # The part of a join may itself be the view of a tensor, which then moves there.
            whole, start = resolve(place.inner)
            outer[whole] = (place.outer, place.start - start)
    return {tensor: resolve(tensor) for tensor in outer}


@dataclass(frozen=True, slots=True)
class Needs:
    """Hold all buffers of a plan, and which serves a node as scratch, pad row or accumulators.

    `outside` are those of inputs that the caller keeps in memory that is only read.
    """

    buffers: tuple[Buffer, ...]
    scratch: dict[int, int]
    pad_rows: dict[int, int]
    accumulators: dict[int, int]
    outside: tuple[Buffer, ...] = ()

    def holding(self, tensor: int) -> int:
        """Return the index of the buffer that holds a tensor."""
        return next(k for k, b in enumerate(self.buffers) if tensor in b.tensors)


def buffers_of(
    graph: Graph,
    profile: IntegerProfile,
    selection: Selection,
    segments: Sequence[tuple[int, ...]] = (),
    streamed_input: bool = False,
    inner: Set[int] = frozenset(),
) -> Needs:
    """Return the buffers of a network, but for tensors that are `inner` ones of their segment.

    A step is the position of a node in the graph. Inputs live from step -1, or with
    `streamed_input` from their first reader, outputs to step n.
    The nodes of a segment run together: what one of them touches lives as long as the segment.
    When in a segment which of it is in use is not said here (plan.items).
    """
    span = {p: (p, p) for p in range(len(graph.nodes))}
    span.update({p: (nodes[0], nodes[-1]) for nodes in segments for p in nodes})
    last = _last_uses(graph, span)
    home = homes(graph, selection.kernels)
    parts: dict[int, list[tuple[int, int]]] = {}  # tensor -> what lies in it, and where
    for tensor, (whole, start) in home.items():
        parts.setdefault(whole, []).append((tensor, start))
    owner: dict[int, int] = {}  # tensor -> group
    groups: list[dict[int, int]] = []  # tensors and where they begin
    births: list[int] = []

    def put(tensor: int, group: int, start: int) -> None:
        """Put a tensor that is no part of another one into a group, with its own parts."""
        for t, inside in [(tensor, 0), *parts.get(tensor, [])]:
            owner[t] = group
            groups[group][t] = start + inside

    def open_group(tensor: int, step: int) -> None:
        groups.append({})
        births.append(step)
        put(home.get(tensor, (tensor, 0))[0], len(groups) - 1, 0)

    for i in graph.inputs:
        readers = [span[p][0] for p, n in enumerate(graph.nodes) if i in n.inputs]
        birth = min(readers, default=-1) if streamed_input else -1
        if i in inner:
            continue
        if i not in owner:
            open_group(i, birth)
        births[owner[i]] = min(births[owner[i]], birth)
    for step, node in enumerate(graph.nodes):
        for k, o in enumerate(node.outputs):
            if o in inner:
                continue
            if o in owner:  # its place is in a tensor that is there already
                births[owner[o]] = min(births[owner[o]], span[step][0])
                continue
            reused = None
            if k == 0 and o not in home and span[step] == (step, step):
                reused = _reusable_input(graph, selection, node, step, last, owner, groups)
            if reused is None:
                open_group(o, span[step][0])
            else:
                put(o, owner[reused], groups[owner[reused]][reused])
    buffers: list[Buffer] = []
    outside: list[Buffer] = []
    for born, group in zip(births, groups, strict=True):
        ends = [s + selection.layout(t).bytes(graph.tensors[t]) for t, s in group.items()]
        (outside if selection.outside & group.keys() else buffers).append(
            Buffer(
                graph.tensors[next(iter(group))].name,
                tuple(group),
                aligned(max(ends)),
                born,
                max(last[t] for t in group),
                tuple(group.values()) if any(group.values()) else (),
            )
        )
    scratch: dict[int, int] = {}
    pad_rows: dict[int, int] = {}
    accumulators: dict[int, int] = {}
    for nodes in segments or [(p,) for p in range(len(graph.nodes))]:
        first, end = span[nodes[0]]
        for p in nodes:
            if size := selection.scratch(graph, p, profile):
                scratch[p] = len(buffers)
                buffers.append(Buffer(f"scratch of node {p}", (), aligned(size), first, end))
            if size := selection.pad_row_bytes(graph, p):
                pad_rows[p] = len(buffers)
                buffers.append(Buffer(f"padding of node {p}", (), aligned(size), first, end))
            if size := selection.accumulators(graph, p, profile):
                accumulators[p] = len(buffers)
                buffers.append(Buffer(f"sums of node {p}", (), aligned(size), first, end))
    return Needs(tuple(buffers), scratch, pad_rows, accumulators, tuple(outside))


def keep_outside(graph: Graph, selection: Selection, inputs: Sequence[int]) -> Selection:
    """Return the selection with inputs, and all that is part of them, in read-only memory.

    Raises UsageError when that would be an output of the network.
    """
    home = homes(graph, selection.kernels)
    outside = {*inputs, *(t for t, (whole, _) in home.items() if whole in inputs)}
    for o in graph.outputs:
        if o in outside:
            raise UsageError(
                f"output '{graph.tensors[o].name[:60]}' is part of an input",
                "what lies in flash is not in the arena",
                "leave out --input flash",
            )
    return replace(selection, outside=frozenset(outside))


def lower_bound(buffers: tuple[Buffer, ...]) -> int:
    """Return the largest number of bytes alive at one step: no arena can be smaller."""
    steps = {b.first for b in buffers}
    return max((sum(b.bytes for b in buffers if b.first <= s <= b.last) for s in steps), default=0)


def _last_uses(graph: Graph, span: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    last: dict[int, int] = dict.fromkeys(graph.inputs, -1)
    for step, node in enumerate(graph.nodes):
        for i in (*node.inputs, *node.outputs):
            if i is not None:
                last[i] = max(span[step][1], last.get(i, -1))
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    return last


def _reusable_input(
    graph: Graph,
    selection: Selection,
    node: Node,
    step: int,
    last: Mapping[int, int],
    owner: Mapping[int, int],
    groups: Sequence[Mapping[int, int]],
) -> int | None:
    """Return the input whose bytes the first output of an in-place operator takes over, if any.

    No tensor of that buffer may be needed later.
    """
    op, call = op_named(node.op), Call(graph, node)
    for position in op.inputs(call):
        i = node.inputs[position]
        if i is None or i not in owner or i in selection.outside:
            continue
        if selection.layout(i) != PLAIN or selection.layout(node.outputs[0]) != PLAIN:
            continue
        free = all(last[t] <= step for t in groups[owner[i]])
        if free and op.in_place(call, position) and graph.tensors[i].bytes == call.output.bytes:
            return i
    return None
