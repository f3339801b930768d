"""Turn a Graph and a core into a kernel per node and a layout per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, Layout, Op, Site, op_named
from tinydeploy.ops.base import Pace

Around: TypeAlias = tuple[tuple[int, Layout], ...]


@dataclass(frozen=True, slots=True)
class Core:
    """Name what kernels are chosen for; the empty ISA is portable C."""

    isa: str = ""
    features: frozenset[str] = frozenset()
    optimize: str = "balanced"


@dataclass(frozen=True, slots=True)
class Selection:
    """Hold the chosen kernel of each node (None for views) and every layout that is not plain.

    The nodes in `streamed` are executed row by row: their kernels must not take tensors whole.
    `paces` are those of nodes that are streamed otherwise than evenly.
    The tensors in `outside` lie in memory of the caller's that is only read, and not in the arena.
    """

    kernels: tuple[Kernel | None, ...]
    layouts: dict[int, Layout] = field(default_factory=dict)
    core: Core = Core()
    streamed: frozenset[int] = frozenset()
    paces: Mapping[int, Pace] = field(default_factory=dict)
    outside: frozenset[int] = frozenset()

    def layout(self, tensor: int) -> Layout:
        return self.layouts.get(tensor, PLAIN)

    def site(self, graph: Graph, position: int, profile: IntegerProfile) -> Site:
        """Return what the kernel of a node is asked with."""
        around, pace = self.around(graph, position), self.pace(position)
        return site_of(graph, position, profile, self.core, around, pace)

    def pace(self, position: int) -> Pace:
        return self.paces.get(position, "even")

    def around(self, graph: Graph, position: int) -> Around:
        """Return the layouts of a node's own tensors that are not plain, as a kernel sees them."""
        node, found = graph.nodes[position], {}
        for i in (*node.inputs, *node.outputs):
            if i is not None and (i in self.layouts or position in self.streamed):
                found[i] = self.layout(i)
                if position in self.streamed and not found[i].ring:
                    found[i] = replace(found[i], ring=1)
        return tuple(found.items())

    def accumulators(self, graph: Graph, position: int, profile: IntegerProfile) -> int:
        """Return the bytes that a node's kernel keeps from one row of its input to the next."""
        kernel = self.kernels[position]
        if kernel is None or kernel.accumulators is None:
            return 0
        return kernel.accumulators(self.site(graph, position, profile))

    def pad_row_bytes(self, graph: Graph, position: int) -> int:
        """Return the size of the row of zero points that a kernel wants in its scratch memory."""
        kernel, node = self.kernels[position], graph.nodes[position]
        if kernel is None or not kernel.pad_row:
            return 0
        index = node.inputs[0]
        size = self.layout(index or 0).row_bytes(graph.tensor(index))
        return -(-size // 4) * 4

    def scratch(self, graph: Graph, position: int, profile: IntegerProfile) -> int:
        """Return the bytes of scratch memory that a node's kernel asks for."""
        kernel = self.kernels[position]
        if kernel is None:
            return 0
        around = self.around(graph, position)
        return _scratch(kernel, graph, position, profile, self.core, around, self.pace(position))


def site_of(
    graph: Graph,
    position: int,
    profile: IntegerProfile,
    core: Core,
    around: Around,
    pace: Pace = "even",
) -> Site:
    """Return what the kernel of a node is asked with, given the layouts of its tensors.

    A node whose pace is a number sees that many rows as one; one that is "stored" has speed for
    its goal.
    """
    optimize = core.optimize
    if isinstance(pace, int):
        graph, pace = folded(graph, position, pace), "even"
    elif pace == "stored":
        optimize, pace = "speed", "wide"
    return Site(
        Call(graph, graph.nodes[position]), profile, core.isa, core.features, optimize,
        dict(around), pace,
    )  # fmt: skip


def can_fold(graph: Graph, position: int, selection: Selection) -> bool:
    """Tell whether a node may see several rows that lie together as one longer row.

    It must compute each element from those at its place, in images of the same rows and columns
    that have no padding between rows.
    """
    call = Call(graph, graph.nodes[position])
    op, out = op_named(call.node.op), call.output
    reads = [call.node.inputs[k] for k in op.inputs(call)]
    images = [graph.tensors[t] for t in (*reads, call.node.outputs[0]) if t is not None]
    if any(len(t.shape) != 4 or t.constant or t.shape[:3] != out.shape[:3] for t in images):
        return False
    if any(selection.layout(t) != PLAIN for t in (*reads, call.node.outputs[0]) if t is not None):
        return False
    sources = (*(op.region(call) or ()), *(op.columns(call) or ()))
    each = {(s.taps, s.stride, s.offset, s.table) for s in sources}
    return len(sources) == 2 * len(reads) and each == {(1, 1, 0, None)}


@lru_cache(maxsize=256)
def folded(graph: Graph, position: int, rows: int) -> Graph:
    """Return the network with so many rows as one in what a node reads and writes."""
    node, tensors = graph.nodes[position], list(graph.tensors)
    for t in {*graph.activation_inputs(node), *node.outputs}:
        batch, height, width, channels = tensors[t].shape
        tensors[t] = replace(tensors[t], shape=(batch, height // rows, width * rows, channels))
    return graph.replace(tensors=tuple(tensors))


@lru_cache(maxsize=1 << 14)
def _scratch(
    kernel: Kernel,
    graph: Graph,
    position: int,
    profile: IntegerProfile,
    core: Core,
    around: Around,
    pace: Pace,
) -> int:
    """Return a kernel's scratch memory; kernels pack weights for that, and a search asks often."""
    return kernel.scratch(site_of(graph, position, profile, core, around, pace))


def select(
    graph: Graph,
    profile: IntegerProfile,
    core: Core = Core(),
    preferred: Mapping[int, str] | None = None,
) -> Selection:
    """Return the first kernel of each node that accepts it and whose layouts can be granted.

    `preferred` names the function of the kernel to use for some nodes, as tuning found them.
    A layout is granted for a tensor when it is no input or output of the network, its producer
    can write it, and each of its readers wants the same.
    """
    chosen: list[Kernel | None] = []
    layouts: dict[int, Layout] = {}
    border = {*graph.inputs, *graph.outputs}
    producers = {o: p for p, n in enumerate(graph.nodes) for o in n.outputs}
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(graph.nodes):
        for i in node.inputs:
            if i is not None:
                readers.setdefault(i, []).append(position)
    for position, node in enumerate(graph.nodes):
        op = op_named(node.op)
        if op.view:
            chosen.append(None)
            continue
        site = Site(Call(graph, node), profile, core.isa, core.features, core.optimize, layouts)
        wish = (preferred or {}).get(position)
        for kernel in _candidates(op, site, wish):
            wanted: dict[int, Layout] = {}
            for k in op.inputs(site.call):
                layout, index = kernel.wants(site, k), node.inputs[k]
                if index is not None and layout != PLAIN:
                    wanted[index] = layout
            if all(
                _grantable(graph, i, layout, position, border, producers, readers, chosen)
                for i, layout in wanted.items()
            ):
                chosen.append(kernel)
                layouts.update(wanted)
                break
    return Selection(tuple(chosen), layouts, core)


def candidates(graph: Graph, position: int, profile: IntegerProfile, core: Core) -> list[Kernel]:
    """Return the kernels that could compute a node on a core, in the order they are tried."""
    op = op_named(graph.nodes[position].op)
    site = Site(Call(graph, graph.nodes[position]), profile, core.isa, core.features, core.optimize)
    return [] if op.view else _candidates(op, site, None)


def _candidates(op: Op, site: Site, preferred: str | None) -> list[Kernel]:
    """Return the kernels that accept a node, the preferred one first."""
    able = [k for k in op.kernels if k.accepts(site)]
    return sorted(able, key=lambda k: k.function != preferred)


def _grantable(
    graph: Graph,
    tensor: int,
    layout: Layout,
    reader: int,
    border: set[int],
    producers: Mapping[int, int],
    readers: Mapping[int, list[int]],
    chosen: list[Kernel | None],
) -> bool:
    """Tell whether a tensor can have a layout that its only reader wants."""
    if tensor in border or tensor not in producers or readers[tensor] != [reader]:
        return False
    if len(graph.tensors[tensor].shape) != 4:
        return False
    position = producers[tensor]
    kernel, node = chosen[position], graph.nodes[position]
    op = op_named(node.op)
    if kernel is None or op.region(Call(graph, node)) is None:
        return False
    return kernel.planar_output if layout.planar else True


def portable(graph: Graph, profile: IntegerProfile) -> Selection:
    """Return the portable C kernels, everything in plain layout."""
    return select(graph, profile, Core())
