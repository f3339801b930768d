"""Turn a Selection into the one for streaming: which kernel a node has when it works row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import PLAIN, Call, Kernel, Op, Site, op_named
from tinydeploy.ops.base import Pace
from tinydeploy.plan.select import Around, Core, Selection, can_fold, site_of
from tinydeploy.plan.stream import Stream

PACES: tuple[Pace, ...] = ("even", "tight", "wide")
STORED: tuple[Pace, ...] = ("stored",)
_PIXELS = (8, 12, 16, 24)  # of rows that are computed as one


def by_rows(graph: Graph, profile: IntegerProfile, selection: Selection) -> Selection:
    """Return the kernels that nodes have when they are streamed, None where they cannot be.

    That is the operator's reduction where the output needs all of the input; else the selected
    kernel if it works by rows, or the next of the family that works on the same layouts.
    """
    kernels = tuple(
        None if k is None else _row_kernel(graph, profile, selection, p)
        for p, k in enumerate(selection.kernels)
    )
    return replace(selection, kernels=kernels)


def paced(
    graph: Graph, profile: IntegerProfile, selection: Selection, stored: bool = False
) -> dict[Pace, Selection]:
    """Return the kernels that nodes have when all are streamed at one pace, by pace.

    Numbers of rows that are computed as one are those that narrow images gain by; other nodes have
    no kernel there. Weights are `stored` wider only if that is asked for.
    """
    nodes = range(len(graph.nodes))
    found = {
        pace: by_rows(graph, profile, replace(selection, paces=dict.fromkeys(nodes, pace)))
        for pace in (*PACES, *STORED[: int(stored)])
    }
    able = [p for p in nodes if found["even"].kernels[p] and can_fold(graph, p, selection)]
    folds = {p: _folds(*Call(graph, graph.nodes[p]).output.shape[1:3]) for p in able}
    for rows in sorted({n for each in folds.values() for n in each}):
        kernels = tuple(
            k if rows in folds.get(p, ()) else None for p, k in enumerate(selection.kernels)
        )
        chosen = replace(selection, kernels=kernels, paces=dict.fromkeys(nodes, rows))
        found[rows] = by_rows(graph, profile, chosen)
    return found


def _folds(height: int, width: int) -> set[int]:
    """Return how many rows may be computed as one: divisors that give so many pixels just so."""
    divisors = [n for n in range(2, height + 1) if height % n == 0]
    fitting = (next((n for n in divisors if n * width >= least), 0) for least in _PIXELS)
    return {n for n in fitting if n and n * width <= 2 * max(_PIXELS)}


def streaming_selection(
    graph: Graph, profile: IntegerProfile, selection: Selection, streams: Sequence[Stream]
) -> Selection:
    """Return the selection with the row kernels of streamed nodes; inner tensors lie row by row."""
    streamed = {p for s in streams for p in s.nodes}
    paces = {
        p: pace for s in streams for p, pace in zip(s.nodes, s.each, strict=True) if pace != "even"
    }
    rows = by_rows(graph, profile, replace(selection, paces=paces))
    kernels = tuple(
        rows.kernels[p] if p in streamed else k for p, k in enumerate(selection.kernels)
    )
    layouts = dict(selection.layouts)
    for s in streams:
        for tensor in s.inner:
            layouts[tensor] = replace(layouts.get(tensor, PLAIN), ring=1)
    return replace(rows, kernels=kernels, layouts=layouts, streamed=frozenset(streamed))


def _row_kernel(
    graph: Graph, profile: IntegerProfile, selection: Selection, position: int
) -> Kernel | None:
    around = replace(selection, streamed=frozenset({position})).around(graph, position)
    own = selection.kernels[position]
    assert own is not None
    pace = selection.pace(position)
    return _found(graph, position, profile, selection.core, around, own, pace)


@lru_cache(maxsize=1 << 14)
def _found(
    graph: Graph,
    position: int,
    profile: IntegerProfile,
    core: Core,
    around: Around,
    own: Kernel,
    pace: Pace,
) -> Kernel | None:
    op = op_named(graph.nodes[position].op)
    site = site_of(graph, position, profile, core, around, pace)
    for kernel in op.reductions:
        if kernel.accepts(site):
            return kernel
    if _is_image(site, op):
        # Portable C, the last, is no substitute for a family's kernel. Some have several of a name,
        # which differ in the rows they compute: where one is selected, the first that can is meant.
        family = [k for k in op.kernels[:-1] if k is not own and _same_layouts(site, op, k)]
        alike = [k for k in family if k.function == own.function] if own.by_rows else []
        named = [k for k in op.kernels if k is own or k in alike]
        for kernel in (*named, *family):
            if kernel.by_rows and kernel.accepts(site) and not kernel.whole(site):
                return kernel
    return None


def _is_image(site: Site, op: Op) -> bool:
    """Tell whether a node computes rows of an image from rows of images."""
    call = site.call
    region = op.region(call)
    if region is None or len(call.output.shape) != 4 or op.rows(call) != call.output.rows:
        return False
    inputs = [call.input(s.input) for s in region]
    return all(len(t.shape) == 4 or t.constant for t in inputs)


def _same_layouts(site: Site, op: Op, kernel: Kernel) -> bool:
    """Tell whether a kernel reads and writes the layouts that were granted."""
    granted = {k: replace(site.input_layout(k), ring=0) for k in op.inputs(site.call)}
    if any(layout != kernel.wants(site, k) for k, layout in granted.items()):
        return False
    return kernel.planar_output or not site.output_layout.planar
