"""Turn a studied network into the bits that QuantMCU would give its feature maps, to compare with.

Tao et al., "Value-Driven Mixed-Precision Quantization for Patch-Based Inference on
Microcontrollers" (DATE 2024, arXiv 2401.13714). The head of the network runs patch by patch.
VDPC: a patch of the input that contains outliers keeps feature maps of 8 bits on its branch. VDQS:
on the other branches each map gets the bits b of the largest score
S(i, b) = -lambda Omega(i, b) + (1 - lambda) Phi(i, b), then fewer, one map at a time, until the
memory limit holds; no training.

Known from the paper's abstract and summaries: the two steps, the score, that Omega is a loss of
entropy and Phi a saving of bit operations. **Our reading**: lambda 0.6, quantile 0.96 and bits
8, 4, 2; both terms relative to the map's own at 8 bits; an outlier is a value beyond the central
share `quantile` of a Gaussian with the mean and deviation of the inputs, and a patch has outliers
if it has more than Gaussian values would (a single one is in nearly every patch: 99 % on the
digits); which map gives way in the iteration; the grid; that the stage ends where its memory at
8 bits is least; that later layers stay at 8 bits. Bits are simulated in float: its kernels are not
part of this project, so memory and bit operations are by its own accounting, not by plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, RowSource, op_named
from tinydeploy.ops.execute import run_floats
from tinydeploy.quantize.calibrate import Statistics
from tinydeploy.quantize.measure import decibels
from tinydeploy.quantize.quantize import Studied
from tinydeploy.quantize.sensitivity import spread

Array = NDArray[Any]
Span = tuple[int, int]  # first row or column, and the one behind the last
Needs = Sequence[Mapping[int, Span]]  # per band of the grid, by tensor

WIDTHS = (8, 4, 2)
_WEIGHT_BITS = 8
_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold the method's constants; `grid` patches lie along each axis."""

    share_of_entropy: float = 0.6
    quantile: float = 0.96
    grid: int = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say what the method chose and what it costs by its own accounting.

    bits: by tensor of the patch stage, for patches without outliers. memory: bytes at the peak for
    such patches, `outlier_memory` for the others. bit_ops: on average over the samples'
    patches, of the whole network; `plain_bit_ops` with 8 bits everywhere. sqnr: simulated, in
    decibels, of the first output, all else in float; `narrow_sqnr` with no patch spared, which
    alone keeps to `memory`.
    """

    end: int
    bits: Mapping[int, int]
    memory: int
    outlier_memory: int
    bit_ops: float
    plain_bit_ops: float
    outlier_patches: float
    sqnr: float
    narrow_sqnr: float


@dataclass(frozen=True, slots=True)
class Stage:
    """Hold the nodes that run patch by patch, up to tensor `end`, and what a patch needs."""

    graph: Graph
    nodes: tuple[int, ...]
    end: int
    rows: Needs
    columns: Needs
    maps: tuple[int, ...] = field(default_factory=tuple)

    def area(self, tensor: int) -> float:
        """Return the elements of a patch of a tensor, of the largest patch."""
        channels = self.graph.tensors[tensor].shape[-1]
        height = max(b - a for a, b in (n[tensor] for n in self.rows))
        return height * max(b - a for a, b in (n[tensor] for n in self.columns)) * channels

    def repeated(self, tensor: int) -> float:
        """Return how many times the elements of a tensor all patches together compute."""
        _, height, width, _ = self.graph.tensors[tensor].shape
        rows = sum(b - a for a, b in (n[tensor] for n in self.rows)) / height
        return rows * sum(b - a for a, b in (n[tensor] for n in self.columns)) / width


def quantmcu(studied: Studied, ram: int | None, settings: Settings = Settings()) -> Outcome | None:
    """Return what the method makes of a network; None if no head of it can run in patches."""
    graph = studied.floats
    stages = [s for s in map(lambda end: _stage(graph, end, settings.grid), _cuts(graph)) if s]
    if not stages:
        return None
    stage = min(stages, key=lambda s: _memory(s, {}))
    bits = search(stage, studied.statistics, ram, settings)
    samples = spread(studied.samples, _SAMPLES)
    outliers = classify(stage, samples, settings)
    share = float(np.mean([o.mean() for o in outliers]))
    plain, narrow = _bit_ops(stage, {}), _bit_ops(stage, bits)
    none = [np.zeros_like(o) for o in outliers]
    return Outcome(
        stage.end, bits, _memory(stage, bits), _memory(stage, {}),
        share * plain + (1 - share) * narrow, plain, share,
        _simulated(stage, studied.statistics, bits, samples, outliers),
        _simulated(stage, studied.statistics, bits, samples, none),
    )  # fmt: skip


def search(
    stage: Stage, statistics: Mapping[int, Statistics], ram: int | None, settings: Settings
) -> dict[int, int]:
    """Return the bits of each feature map of a branch without outliers (VDQS)."""
    scores = {
        (i, b): _score(statistics[i], b, settings.share_of_entropy)
        for i in stage.maps
        for b in WIDTHS
    }
    bits = {i: max(WIDTHS, key=lambda b: (scores[i, b], b)) for i in stage.maps}

    def excess(bits: Mapping[int, int]) -> float:
        return sum(max(0.0, p - ram) for p in _peaks(stage, bits)) if ram is not None else 0.0

    while (now := excess(bits)) > 0:
        steps = [
            (scores[i, b // 2] - scores[i, b], i)
            for i, b in bits.items()
            if b > 2 and excess({**bits, i: b // 2}) < now
        ]
        if not steps:
            break
        _, worst = max(steps)
        bits[worst] //= 2
    return bits


def _score(stats: Statistics, bits: int, share: float) -> float:
    """Return S(i, b); the entropy is that of the histogram over 2^b equal steps."""
    full = _entropy(stats, 8)
    lost = 1 - _entropy(stats, bits) / full if full > 0 else 0.0
    return -share * lost + (1 - share) * (1 - bits / 8)


def _entropy(stats: Statistics, bits: int) -> float:
    counts = stats.counts.reshape(1 << bits, -1).sum(axis=1).astype(np.float64)
    shares = counts[counts > 0] / max(counts.sum(), 1.0)
    return float(-(shares * np.log2(shares)).sum())


def classify(
    stage: Stage, samples: Sequence[Sequence[Array]], settings: Settings
) -> list[NDArray[np.bool_]]:
    """Return, per sample, which patches of the input contain outliers (VDPC): [grid, grid]."""
    index = stage.graph.inputs[0]
    every = np.concatenate([s[0].reshape(-1) for s in samples]).astype(np.float64)
    reach = NormalDist().inv_cdf((1 + settings.quantile) / 2) * float(every.std())
    found = []
    for sample in samples:
        far = np.abs(sample[0] - every.mean()) > reach
        found.append(
            np.array(
                [
                    [
                        far[:, a:b, c:d].mean() > 1 - settings.quantile
                        for c, d in (n[index] for n in stage.columns)
                    ]
                    for a, b in (n[index] for n in stage.rows)
                ]
            )
        )
    return found


def _cuts(graph: Graph) -> list[int]:
    """Return the images behind which nothing else is needed of what was computed before."""
    last = {i: p for p, n in enumerate(graph.nodes) for i in n.inputs if i is not None}
    found = []
    for position, node in enumerate(graph.nodes):
        made = {*graph.inputs, *(o for n in graph.nodes[: position + 1] for o in n.outputs)}
        alive = {i for i in made if last.get(i, -1) > position or i in graph.outputs}
        shape = graph.tensors[node.outputs[0]].shape
        if alive == {node.outputs[0]} and len(shape) == 4 and min(shape[1:3]) > 1:
            found.append(node.outputs[0])
    return found


def _stage(graph: Graph, end: int, grid: int) -> Stage | None:
    """Return the nodes up to a tensor as a stage of patches; None if some cannot be."""
    position = next(p for p, n in enumerate(graph.nodes) if end in n.outputs)
    nodes = tuple(range(position + 1))
    _, height, width, _ = graph.tensors[end].shape
    rows = _needs(graph, nodes, end, height, grid, 1, lambda c: op_named(c.node.op).region(c))
    columns = _needs(graph, nodes, end, width, grid, 2, _columns)
    if rows is None or columns is None or graph.inputs[0] not in rows[0]:
        return None
    maps = tuple(o for p in nodes for o in graph.nodes[p].outputs)
    return Stage(graph, nodes, end, rows, columns, maps)


def _columns(call: Call) -> tuple[RowSource, ...] | None:
    """Return what an operator needs along the width; padding moves it."""
    if call.node.op == "PAD":
        return (RowSource(offset=-call.attributes.before[2]),)
    return op_named(call.node.op).columns(call)


def _needs(
    graph: Graph,
    nodes: Sequence[int],
    end: int,
    size: int,
    grid: int,
    axis: int,
    sources: Callable[[Call], tuple[RowSource, ...] | None],
) -> Needs | None:
    """Return the spans along an axis that each band of the end needs of every tensor."""
    edges = [size * k // grid for k in range(grid + 1)]
    bands: list[dict[int, Span]] = []
    for low, high in pairwise(edges):
        need: dict[int, Span] = {end: (low, max(high, low + 1))}
        for position in reversed(nodes):
            call = Call(graph, graph.nodes[position])
            out = need.get(call.node.outputs[0])
            given = sources(call)
            if given is None:
                return None
            if out is None:
                continue
            for source in given:
                index = call.node.inputs[source.input]
                assert index is not None
                shape = graph.tensors[index].shape
                if len(shape) != 4:
                    return None
                ends = [*source.rows(out[0]), *source.rows(out[1] - 1)]
                a, b = need.get(index, (shape[axis], 0))
                a, b = min(a, *ends), max(b, *(e + 1 for e in ends))
                need[index] = max(a, 0), min(b, shape[axis])
        bands.append(need)
    return bands


def _memory(stage: Stage, bits: Mapping[int, int]) -> int:
    """Return the peak in bytes."""
    return int(np.ceil(max(_peaks(stage, bits))))


def _peaks(stage: Stage, bits: Mapping[int, int]) -> list[float]:
    """Return the bytes per node: a patch's live maps, the input and the end; then whole maps."""
    graph = stage.graph
    size = {i: t.elements for i, t in enumerate(graph.tensors)}
    last = {i: p for p, n in enumerate(graph.nodes) for i in n.inputs if i is not None}
    whole = size[graph.inputs[0]] + size[stage.end] * bits.get(stage.end, 8) // 8
    peaks, alive = [], set(graph.inputs)
    for position, node in enumerate(graph.nodes):
        inside = position in stage.nodes
        alive |= {*node.outputs}
        if inside:
            held = [i for i in alive if i not in graph.inputs and i != stage.end]
            now = whole + sum(stage.area(i) * bits.get(i, 8) / 8 for i in held)
        else:
            now = sum(size[i] * bits.get(i, 8) / 8 for i in alive if last.get(i, -1) >= position
                      or i in node.outputs)  # fmt: skip
        peaks.append(now)
        alive = {i for i in alive if last.get(i, -1) > position or i in graph.outputs}
    return peaks


def _bit_ops(stage: Stage, bits: Mapping[int, int]) -> float:
    """Return multiply-accumulates times the bits of both factors; patches compute halos again."""
    total = 0.0
    for position, node in enumerate(stage.graph.nodes):
        macs = float(op_named(node.op).macs(Call(stage.graph, node)))
        if position in stage.nodes:
            macs *= stage.repeated(node.outputs[0])
        total += macs * bits.get(node.inputs[0] or 0, 8) * _WEIGHT_BITS
    return total


def _simulated(
    stage: Stage,
    statistics: Mapping[int, Statistics],
    bits: Mapping[int, int],
    samples: Sequence[Sequence[Array]],
    outliers: Sequence[NDArray[np.bool_]],
) -> float:
    """Return the ratio of signal to error at the output, maps rounded cell by cell of the grid."""
    signal = noise = 0.0
    for sample, marked in zip(samples, outliers, strict=True):
        exact = run_floats(stage.graph, sample)
        values = list(exact)
        for position, node in enumerate(stage.graph.nodes):
            reference = op_named(node.op).float_reference
            assert reference is not None
            empty = np.zeros(0, np.float32)
            given = [empty if i is None else values[i] for i in node.inputs]
            (out,) = reference(Call(stage.graph, node), given)
            o = node.outputs[0]
            if position in stage.nodes:
                out = _in_cells(out, statistics[o], bits.get(o, 8), marked)
            values[o] = out.astype(np.float32)
        index = stage.graph.outputs[0]
        signal += float((exact[index].astype(np.float64) ** 2).sum())
        noise += float(((values[index].astype(np.float64) - exact[index]) ** 2).sum())
    return decibels(signal, noise)


def _in_cells(values: Array, stats: Statistics, bits: int, marked: NDArray[np.bool_]) -> Array:
    """Round an image to 8 bits where patches are marked, to fewer elsewhere."""
    fine, coarse = _rounded(values, stats, 8), _rounded(values, stats, bits)
    rows = np.arange(values.shape[1]) * len(marked) // values.shape[1]
    columns = np.arange(values.shape[2]) * len(marked) // values.shape[2]
    return np.where(marked[rows][:, columns][None, :, :, None], fine, coarse)


def _rounded(values: Array, stats: Statistics, bits: int) -> Array:
    low, high = min(stats.low, 0.0), max(stats.high, 0.0)
    step = (high - low) / (2**bits - 1) or 1.0
    shift = np.rint(-low / step)
    kept = np.clip(np.rint(values / step) + shift, 0, 2**bits - 1)
    return np.asarray((kept - shift) * step)
