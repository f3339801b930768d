"""Fold PAD into the convolution that reads it, as explicit padding."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.ir import Graph, Node
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call
from tinydeploy.ops._window import Window, convolution


def fold_pads(graph: Graph, profile: IntegerProfile) -> Graph:
    """Return the graph with each PAD of rows and columns that only convolutions read removed.

    Exact, because PAD writes the zero point and a convolution's own padding adds nothing: both
    mean a real zero.
    """
    nodes = list(graph.nodes)
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        for i in node.inputs:
            if i is not None:
                readers.setdefault(i, []).append(position)
    removed = set()
    for position, node in enumerate(nodes):
        if node.op != "PAD" or node.outputs[0] in graph.outputs:
            continue
        users = readers.get(node.outputs[0], [])
        if not users or not all(_accepts(graph, nodes[u], node) for u in users):
            continue
        for u in users:
            nodes[u] = _padded(graph, nodes[u], node)
        removed.add(position)
    return graph.replace(nodes=tuple(n for p, n in enumerate(nodes) if p not in removed))


def _accepts(graph: Graph, user: Node, pad: Node) -> bool:
    """Tell whether a reader is a convolution of an image padded along height and width only."""
    before, after = pad.attributes.before, pad.attributes.after
    return (
        user.op in ("CONV_2D", "DEPTHWISE_CONV_2D")
        and len(before) == 4
        and not (before[0] or after[0] or before[3] or after[3])
        and user.inputs[0] == pad.outputs[0]
    )


def _padded(graph: Graph, user: Node, pad: Node) -> Node:
    """Return a convolution that reads what the PAD reads; its own padding is added."""
    window: Window = user.attributes
    before, after = pad.attributes.before, pad.attributes.after
    g = convolution(Call(graph, user))
    # What SAME adds below and to the right, so that sizes stay as they are.
    reach_h = (g.kernel_h - 1) * g.dilation_h + 1
    reach_w = (g.kernel_w - 1) * g.dilation_w + 1
    below = max(0, (g.out_h - 1) * g.stride_h + reach_h - g.in_h - g.pad_top)
    right = max(0, (g.out_w - 1) * g.stride_w + reach_w - g.in_w - g.pad_left)
    explicit = replace(
        window,
        pad_top=g.pad_top + before[1],
        pad_bottom=below + after[1],
        pad_left=g.pad_left + before[2],
        pad_right=right + after[2],
    )
    return replace(user, inputs=(pad.inputs[0], *user.inputs[1:]), attributes=explicit)
