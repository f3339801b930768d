"""Turn an integer Graph and a target into what it would take: RAM, flash, instructions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.codegen import Provenance, generate
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.passes import run_passes
from tinydeploy.pipeline import selected
from tinydeploy.plan import search
from tinydeploy.plan.cost import instructions
from tinydeploy.plan.flash import node_constants
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.liveness import executed
from tinydeploy.plan.search import Wanted
from tinydeploy.plan.select import Core, Selection
from tinydeploy.quantize.mixed import Footprint

# Calls that need so much of what the largest needs are worth making smaller.
_NEAR = 0.95


@dataclass(frozen=True, slots=True)
class Machine:
    """Plan and generate networks for a core, and say what they take (quantize.mixed.Machine).

    RAM is the arena of the plan: with `wanted.ram` that of the fastest one that fits, else of the
    one with least RAM. Flash is that of the generated constants: weights, biases and tables.
    """

    profile: IntegerProfile
    core: Core
    wanted: Wanted
    allocator: str = "auto"

    def _ready(self, graph: Graph) -> tuple[Graph, Selection]:
        network = run_passes(graph, self.profile)
        return network, selected(network, self.profile, self.core, self.wanted)

    def takes(self, graph: Graph) -> Footprint:
        """Return what a network takes in the end."""
        network, selection = self._ready(graph)
        ram = self.wanted.ram
        anything = replace(self.wanted, ram=None)
        _, front = search.plan(network, self.profile, selection, anything, self.allocator)
        fitting = [c for c in front if ram is not None and c.plan.arena_bytes <= ram]
        choice = (fitting or list(front[:1]))[-1]
        about = Provenance(graph.name, "", "", "")
        constants = generate(choice.graph, choice.plan, self.profile, about).const_bytes
        return Footprint(choice.plan.arena_bytes, constants, choice.instructions)

    def peak(self, graph: Graph) -> tuple[int, dict[str, float]]:
        """Return about the least RAM, and how many bytes of each tensor are in use at its peak."""
        network, selection = self._ready(graph)
        streamed = self.wanted.streamed_input
        plan = search.least_ram(network, self.profile, selection, streamed)
        return plan.arena_bytes, _peak(network, plan)

    def layers(self, graph: Graph) -> dict[str, tuple[int, float]]:
        """Return bytes of constants and estimated instructions by the name of a node's output."""
        network, selection = self._ready(graph)
        return {
            network.tensors[network.nodes[p].outputs[0]].name: (
                node_constants(network, self.profile, selection, p),
                instructions(network, self.profile, selection, p),
            )
            for p in executed(network, selection)
        }


def _peak(graph: Graph, plan: MemoryPlan) -> dict[str, float]:
    """Return the bytes of each tensor that are in use, on average, where most memory is."""
    items = plan.items
    calls = np.flatnonzero(items.alive >= _NEAR * items.bound)
    used = []
    for item in items.items:
        start, end, first, last = item.pieces.T
        times = np.searchsorted(calls, last, "right") - np.searchsorted(calls, first)
        used.append(float((times * (end - start)).sum()) / len(calls))
    found = [({k}, b.tensors) for k, b in enumerate(plan.buffers)]
    found += [({k for k, _ in rows}, (t,)) for t, rows in items.rows.items()]
    return {graph.tensors[t].name: sum(used[k] for k in own) for own, ts in found for t in ts}
