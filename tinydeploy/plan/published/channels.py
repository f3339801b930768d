"""Turn runs of a Graph into groups of channels that are computed one after the other."""

from __future__ import annotations

from tinydeploy.ir import DType, Graph
from tinydeploy.ops import Call, op_named
from tinydeploy.plan.published.lives import lives_of
from tinydeploy.plan.published.schedule import Piece, Schedule, best, layer_pieces

NAME = "channel groups"

_MIXING = ("CONV_2D", "FULLY_CONNECTED")
_BY_CHANNEL = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


def plan(graph: Graph, mac_factor: float = 1.0, input_counted: bool = True) -> Schedule:
    """Return the best runs of nodes that work on some of their channels at a time.

    Partial execution along channels: Pex (Liberis and Lane, 2022, arXiv 2211.17246) and fused
    depthwise tiling, FDT (Stahl et al., TinyML Symposium 2023, arXiv 2303.17878), as we read
    their abstracts. A run is: a convolution or dense layer that makes a group of its output
    channels of the whole input (fan-out; may be missing, then the run begins with a tensor that
    is there); nodes that work by channel (depthwise, pooling, element-wise of one input); and a
    convolution or dense layer that adds each group to sums of its whole output (fan-in; may be
    missing, then groups are written into the whole output). An inverted residual's expand,
    depthwise, project is one run. Counted: the run's input and all that waits, whole; of the
    tensors between, one group of channels, from their node to the next (by channel: in place); the
    sums of a fan-in, 4 bytes per element (8 for int16), in which its output comes to lie. Every MAC
    is executed once. Groups are of as many channels as the lowest peak allows. Not counted:
    kernels' own memory, gaps, and the time that reading weights by groups takes.
    """
    runs = [(s, e) for s in range(len(graph.nodes)) for e in _ends(graph, s)]
    smallest = best(
        NAME, graph, layer_pieces(graph) + [_piece(graph, s, e, 1) for s, e in runs],
        mac_factor, input_counted,
    )  # fmt: skip
    which = 0 if input_counted else 1
    limit = (smallest.arena_bytes, smallest.without_input)[which]
    larger = [_largest(graph, p.start, p.end, limit, which) if p.how else p
              for p in smallest.pieces]  # fmt: skip
    return best(NAME, graph, layer_pieces(graph) + larger, mac_factor, input_counted)


def _mixes(graph: Graph, position: int) -> bool:
    """Tell whether all of a node's output channels depend on all of its input channels."""
    node = graph.nodes[position]
    if node.op == "CONV_2D":
        return Call(graph, node).input(1).shape[3] == Call(graph, node).input().shape[3]
    return node.op in _MIXING


def _by_channel(graph: Graph, position: int) -> bool:
    """Tell whether a channel of a node's output depends on that channel of one input alone."""
    node = graph.nodes[position]
    call = Call(graph, node)
    if len(graph.activation_inputs(node)) != 1:
        return False
    if node.op == "DEPTHWISE_CONV_2D":
        return call.input().shape[3] == call.output.shape[3]
    if op_named(node.op).view:  # dense layers after global pooling see channels through a reshape
        return call.input().shape[-1] == call.output.elements == call.input().elements
    if node.op == "MEAN":
        return len(call.input().shape) - 1 not in call.attributes.axes
    return node.op in _BY_CHANNEL or op_named(node.op).pointwise


def _ends(graph: Graph, start: int) -> list[int]:
    """Return after which nodes a run of two or more from `start` on may end."""
    ends: list[int] = []
    if not (_mixes(graph, start) or _by_channel(graph, start)):
        return ends
    for p in range(start + 1, len(graph.nodes)):
        node, before = graph.nodes[p], graph.nodes[p - 1].outputs[0]
        readers = sum(before in n.inputs for n in graph.nodes)
        if graph.activation_inputs(node) != [before] or readers != 1 or before in graph.outputs:
            break
        if _mixes(graph, p):
            ends.append(p + 1)
            break
        if not _by_channel(graph, p):
            break
        if not op_named(node.op).view:
            ends.append(p + 1)
    return ends


def _piece(graph: Graph, start: int, end: int, channels: int) -> Piece:
    """Return a run with groups of `channels` channels."""
    lives = lives_of(graph)
    nodes = graph.nodes[start:end]
    between = [lives.home[n.outputs[0]] for n in nodes[:-1]]
    group = [channels * graph.tensors[t].bytes // graph.tensors[t].shape[-1] for t in between]
    # Channel by channel each output may lie over its input: the largest of the tensors between.
    own = max(group)
    last = lives.home[nodes[-1].outputs[0]]
    out = graph.tensors[last]
    if _mixes(graph, end - 1):
        sums = 8 if out.dtype is DType.INT16 else 4
        own += (sums - out.dtype.size) * out.elements
    whole = {*lives.whole(start, end), last}
    counted, elsewhere = lives.count(whole)
    count = -(-graph.tensors[between[0]].shape[-1] // channels)
    how = f"{count} groups of {channels} channel{'s' * (channels > 1)}"
    return Piece(start, end, (counted + own, elsewhere + own), 0, how)


def _largest(graph: Graph, start: int, end: int, limit: int, which: int) -> Piece:
    """Return a run with groups as large as a peak of `limit` bytes allows."""
    most = graph.tensors[graph.nodes[start].outputs[0]].shape[-1]
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _piece(graph, start, end, middle).bytes[which] <= limit
        low, high = (middle, high) if fits else (low, middle - 1)
    return _piece(graph, start, end, low)
