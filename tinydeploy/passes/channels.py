"""Remove channels that are constant or that nobody reads, bit for bit.

Forward: the interval of values that each channel of each tensor can take. A channel whose
interval is one value is constant. Backward: a channel can go when every reader either multiplies
it by zeros only, or can take its constant into the bias, or is a channel-wise operator whose own
output channel can go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph, Node, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.types import DType, Quantization
from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops import _wide as wide
from tinydeploy.ops._window import Geometry, bias_of, convolution

Array = NDArray[Any]
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


@dataclass(frozen=True, slots=True)
class Interval:
    """Bound the stored values of each channel: low and high, int64 [channels]."""

    low: Array
    high: Array

    @property
    def constant(self) -> Array:
        """Which channels can only have one value."""
        found: Array = self.low == self.high
        return found


def remove_channels(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph without channels that cannot influence an output."""
    intervals = _intervals(graph, profile)
    removable = _removable(graph, intervals)
    if not any(gone.any() for gone in removable.values()):
        return graph
    tensors = list(graph.tensors)
    nodes = []
    for node in graph.nodes:
        if node.op in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            node = _without_channels(graph, tensors, node, intervals, removable)
        nodes.append(node)
    for i, gone in removable.items():
        t = tensors[i]
        tensors[i] = replace(t, shape=(*t.shape[:-1], int((~gone).sum())))
    return graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))


def _channelwise(call: Call) -> bool:
    """Tell whether output channel c depends on input channel c alone."""
    if call.node.op in _POOLS:
        return True
    return call.node.op == "DEPTHWISE_CONV_2D" and call.input().shape[3] == call.output.shape[3]


def _dense(call: Call) -> bool:
    return call.node.op == "CONV_2D" and call.input(1).shape[3] == call.input().shape[3]


def _has_padding(g: Geometry) -> bool:
    """Tell whether any window reaches outside the image."""
    last_row = (g.out_h - 1) * g.stride_h - g.pad_top + (g.kernel_h - 1) * g.dilation_h
    last_column = (g.out_w - 1) * g.stride_w - g.pad_left + (g.kernel_w - 1) * g.dilation_w
    return g.pad_top > 0 or g.pad_left > 0 or last_row >= g.in_h or last_column >= g.in_w


def _intervals(graph: Graph, profile: IntegerProfile) -> dict[int, Interval]:
    """Return the values that each channel can take; unknown operators give the full range."""
    found: dict[int, Interval] = {}

    def of(index: int) -> Interval:
        channels = graph.tensors[index].shape[-1] if graph.tensors[index].shape else 1
        low, high = graph.tensors[index].dtype.bounds
        full = Interval(np.full(channels, low), np.full(channels, high))
        return found.get(index, full)

    for node in graph.nodes:
        call = Call(graph, node)
        if node.op in _POOLS:
            # A mean or a maximum lies between its values; the clamp moves both ends alike.
            clamp = op_named(node.op).params(call, profile)
            source = of(node.inputs[0] or 0)
            found[node.outputs[0]] = Interval(
                np.clip(source.low, clamp.clamp_min, clamp.clamp_max),
                np.clip(source.high, clamp.clamp_min, clamp.clamp_max),
            )
        elif _dense(call) or (node.op == "DEPTHWISE_CONV_2D" and _channelwise(call)):
            found[node.outputs[0]] = _convolved(call, of(node.inputs[0] or 0), profile)
    return found


def _convolved(call: Call, source: Interval, profile: IntegerProfile) -> Interval:
    """Return the outputs of a convolution whose inputs lie in an interval.

    Requantisation and clamp are monotonic, so the ends of the accumulator give the ends.
    """
    p = op_named(call.node.op).params(call, profile)
    low, high = source.low + p.in_offset, source.high + p.in_offset
    if _has_padding(convolution(call)):
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    w = p.weights.astype(np.int64)
    positive, negative = np.maximum(w, 0), np.minimum(w, 0)
    if call.node.op == "CONV_2D":
        axes: tuple[int, ...] = (1, 2, 3)
    else:
        axes = (0, 1)
    least = (positive * low + negative * high).sum(axis=axes) + p.bias
    most = (positive * high + negative * low).sum(axis=axes) + p.bias
    single = profile.rounds_once(call.node.op)

    def stored(acc: Array) -> Array:
        out = wide.requantized(call, acc, p, single=single) + p.out_offset
        clipped: Array = np.clip(out, p.clamp_min, p.clamp_max)
        return clipped

    # An accumulator that could wrap, or be scaled up past int32, says nothing.
    up = np.maximum(p.shift.astype(np.int64), 0)
    limit = 2**31 >> up if call.output.dtype is DType.INT8 else 2 ** (31 - p.shift.astype(float))
    safe = (least >= -limit) & (most < limit)
    return Interval(
        np.where(safe, stored(least), p.clamp_min), np.where(safe, stored(most), p.clamp_max)
    )


def _removable(graph: Graph, intervals: dict[int, Interval]) -> dict[int, Array]:
    """Return which channels of which tensors can go: the largest set that justifies itself.

    Start from all channels of all candidates and take back what a reader needs, until nothing
    changes. A channel-wise operator keeps or drops a channel together with its input, and every
    tensor keeps at least one channel.
    """
    readers: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for i in node.inputs:
            if i is not None:
                readers.setdefault(i, []).append(node)
    gone = {
        node.outputs[0]: np.ones(graph.tensors[node.outputs[0]].shape[-1], bool)
        for node in graph.nodes
        if node.outputs[0] not in graph.outputs
        and (_dense(Call(graph, node)) or _channelwise(Call(graph, node)))
    }
    before = -1
    while before != (before := sum(int(mask.sum()) for mask in gone.values())):
        for node in reversed(graph.nodes):
            index = node.outputs[0]
            if index not in gone:
                continue
            for reader in readers.get(index, []):
                gone[index] &= _unneeded_by(graph, reader, index, intervals, gone)
            if _channelwise(Call(graph, node)):
                keep_all = np.zeros_like(gone[index])
                gone[index] &= gone.get(node.inputs[0] or 0, keep_all)
            if gone[index].all():
                gone[index][0] = False
    return {i: mask for i, mask in gone.items() if mask.any()}


def _unneeded_by(
    graph: Graph, reader: Node, index: int, intervals: dict[int, Interval], gone: dict[int, Array]
) -> Array:
    """Return which channels of a tensor one reader can do without."""
    call = Call(graph, reader)
    channels = graph.tensors[index].shape[-1]
    if reader.inputs[0] != index:
        return np.zeros(channels, bool)
    if _channelwise(call):
        return gone.get(reader.outputs[0], np.zeros(channels, bool))
    if not _dense(call):
        return np.zeros(channels, bool)
    weights = call.input(1).data
    assert weights is not None
    kept = ~gone.get(reader.outputs[0], np.zeros(weights.shape[0], bool))
    unread: Array = np.asarray(~weights[kept].any(axis=(0, 1, 2)))
    if index in intervals:
        interval = intervals[index]
        # Next to padding, only the constant that padding has is the same for every window.
        foldable = interval.constant.copy()
        if _has_padding(convolution(call)):
            foldable &= interval.low == graph.tensors[index].zero_point
        unread |= foldable
    return unread


def _without_channels(
    graph: Graph,
    tensors: list[Tensor],
    node: Node,
    intervals: dict[int, Interval],
    removable: dict[int, Array],
) -> Node:
    """Return a convolution over the remaining channels; new constants are appended to `tensors`."""
    call = Call(graph, node)
    source = node.inputs[0] or 0
    weights = call.input(1)
    assert weights.data is not None and weights.quantization is not None
    w, bias = weights.data, bias_of(call).astype(np.int64)
    lost_in, lost_out = removable.get(source), removable.get(node.outputs[0])
    if lost_in is None and lost_out is None:
        return node
    dense = node.op == "CONV_2D"
    if dense and lost_in is not None:
        if source in intervals:
            value = intervals[source].low - graph.tensors[source].zero_point
            fixed = lost_in & intervals[source].constant
            bias = bias + (w.astype(np.int64).sum(axis=(1, 2)) * np.where(fixed, value, 0)).sum(1)
        w = w[..., ~lost_in]
    kept = ~lost_out if lost_out is not None else np.ones(call.output.shape[3], bool)
    w = w[kept] if dense else w[..., kept]
    q = weights.quantization
    scales = (
        tuple(s for s, k in zip(q.scales, kept, strict=True) if k) if q.per_channel else q.scales
    )
    quantization = Quantization(scales, (0,) * len(scales), q.axis)
    sums = bias[kept]
    if call.output.dtype is DType.INT8:
        sums = wrap32(sums).astype(np.int32)
    tensors.append(Tensor(weights.name, w.shape, DType.INT8, quantization, constant(w)))
    tensors.append(
        Tensor(
            f"{weights.name[:80]} bias", sums.shape, DType(sums.dtype.name), None, constant(sums)
        )
    )
    return replace(node, inputs=(node.inputs[0], len(tensors) - 2, len(tensors) - 1))
