"""Turn a Graph into the schedule of TinyEngine without patches: one layer after the other."""

from __future__ import annotations

from tinydeploy.ir import Graph
from tinydeploy.plan.published.schedule import Schedule, best, layer_pieces

NAME = "layer by layer"


def plan(graph: Graph, mac_factor: float = 1.0, input_counted: bool = True) -> Schedule:
    """Return what running each node whole takes, with operators in place.

    TinyEngine (MCUNet, Lin et al., NeurIPS 2020, section 3.2): a depthwise convolution writes over
    its input, channel by channel; so do element-wise operators here. Counted: every activation
    from the node that makes it to its last reader, network outputs to the end. Not counted: the
    buffer of one channel, im2col and other kernels' memory, gaps between buffers.
    """
    return best(NAME, graph, layer_pieces(graph), mac_factor, input_counted)
