"""Turn a Graph into the lifetimes of its activations, whole tensors without rings or places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tinydeploy.ir import Graph
from tinydeploy.ops import Call, op_named

Pair = tuple[int, int]  # bytes with the network's inputs counted, and without them


@dataclass(frozen=True, slots=True)
class Lives:
    """Hold for each activation the node that makes it and the last one that reads it.

    Inputs are made at -1 and outputs are read at the number of nodes. A view is no tensor of its
    own: `home` names what it is a view of.
    """

    graph: Graph
    home: dict[int, int]
    made: dict[int, int]
    read: dict[int, int]

    def inner(self, tensor: int, start: int, end: int) -> bool:
        """Tell whether only the nodes from `start` to before `end` ever see a tensor."""
        t = self.home[tensor]
        return start <= self.made[t] and self.read[t] < end

    def whole(self, start: int, end: int) -> list[int]:
        """Return what lies in memory whole while these nodes run: all that is not theirs alone."""
        return [
            t for t, made in self.made.items()
            if made < end and self.read[t] >= start and not self.inner(t, start, end)
        ]  # fmt: skip

    def leaving(self, start: int, end: int) -> list[int]:
        """Return what these nodes make and later ones read."""
        return [t for t in self.made if start <= self.made[t] < end <= self.read[t]]

    def count(self, tensors: Iterable[int]) -> Pair:
        """Return bytes of whole tensors, with the network's inputs and without."""
        counted = elsewhere = 0
        for t in tensors:
            size = self.graph.tensors[t].bytes
            counted += size
            elsewhere += 0 if t in self.graph.inputs else size
        return counted, elsewhere

    def dies_at(self, tensor: int, position: int) -> bool:
        return self.read[self.home[tensor]] == position


@lru_cache(maxsize=8)
def lives_of(graph: Graph) -> Lives:
    """Return the lifetimes of a network whose nodes run in their order."""
    home = {t: t for t in graph.inputs}
    made = dict.fromkeys(graph.inputs, -1)
    read = dict.fromkeys(graph.inputs, -1)
    for position, node in enumerate(graph.nodes):
        for t in graph.activation_inputs(node):
            read[home[t]] = position
        view = op_named(node.op).view
        for t in node.outputs:
            home[t] = home[graph.activation_inputs(node)[0]] if view else t
            if not view:
                made[t] = read[t] = position
    for t in graph.outputs:
        read[home[t]] = len(graph.nodes)
    return Lives(graph, home, made, read)


def overwritten(lives: Lives, position: int) -> int | None:
    """Return the tensor that a node may write its output over, None if there is none.

    Depthwise convolutions are computed channel by channel through a buffer of one channel
    (TinyEngine; MCUNet, NeurIPS 2020, section 3.2, in-place depthwise), also at stride 2; of
    element-wise operators the output lies exactly over an input. The input is read no more.
    """
    graph = lives.graph
    node = graph.nodes[position]
    op, call = op_named(node.op), Call(graph, node)
    for k in op.inputs(call):
        t = node.inputs[k]
        if t is None or graph.tensors[t].constant or not lives.dies_at(t, position):
            continue
        same = graph.tensors[t].shape[-1] == call.output.shape[-1]
        depthwise = node.op == "DEPTHWISE_CONV_2D" and same
        if depthwise or (op.in_place(call, k) and graph.tensors[t].bytes == call.output.bytes):
            return lives.home[t]
    return None


def layer_bytes(lives: Lives, position: int) -> Pair:
    """Return the bytes alive while one node runs, its output over an input where that may be."""
    graph, node = lives.graph, lives.graph.nodes[position]
    whole = {*lives.whole(position, position + 1), *(lives.home[t] for t in node.outputs)}
    counted, elsewhere = lives.count(whole)
    under = overwritten(lives, position)
    if under is None or op_named(node.op).view:
        return counted, elsewhere
    shared = min(graph.tensors[under].bytes, graph.tensors[node.outputs[0]].bytes)
    # An input that is not in RAM cannot be overwritten.
    return counted - shared, elsewhere - (0 if under in graph.inputs else shared)


@lru_cache(maxsize=8)
def macs_of(graph: Graph) -> tuple[int, ...]:
    """Return the multiply-accumulates of each node, run once."""
    return tuple(op_named(n.op).macs(Call(graph, n)) for n in graph.nodes)
