"""Turn a Graph into what published memory schedules would take of RAM, to compare with.

Analytic models, no code: each method in a module of its own that names its source and says what
it counts. All count bytes alive at the peak, so that none suffers from an allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tinydeploy.ir import Graph
from tinydeploy.plan.published import bands, channels, layers, lines, patches
from tinydeploy.plan.published.schedule import Schedule

Method = Callable[[Graph, float, bool], Schedule]

# What each is known by, and what plans it: (network, MAC factor allowed, input counted).
METHODS: Mapping[str, tuple[str, Method]] = MappingProxyType({
    layers.NAME: ("TinyEngine", layers.plan),
    patches.NAME: ("MCUNetV2", patches.plan),
    bands.ONE_AXIS: ("StreamNet-1D", bands.one_axis),
    bands.TWO_AXES: ("StreamNet-2D", bands.two_axes),
    bands.BLOCKS: ("msf-CNN", bands.blocks),
    channels.NAME: ("Pex, FDT", channels.plan),
    lines.NAME: ("ImaGen", lines.plan),
})  # fmt: skip


def compare(
    graph: Graph,
    mac_factor: float,
    input_counted: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[str, Schedule]]:
    """Return the best schedule of each method with what it is known by."""
    found = []
    for done, (known, method) in enumerate(METHODS.values()):
        progress(done, len(METHODS))
        found.append((known, method(graph, mac_factor, input_counted)))
    return found
