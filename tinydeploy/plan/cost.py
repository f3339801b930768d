"""Turn a node and its kernel into an estimate of instructions, from figures measured in QEMU.

estimate = per_call * calls + per_output * output elements + per_mac * multiply-accumulates; the
three figures of each kernel were fitted to counts of whole networks (`tools/fit-costs`). They
serve to compare plans: what is reported about a firmware is counted, not estimated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, Kernel, op_named
from tinydeploy.plan.select import Selection

# Instructions per step of a streamed segment, and per column of its schedule and step.
STEP, COLUMN = 8.0, 4.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold instructions per call (row pointers included), output element and MAC."""

    per_call: float = 120.0
    per_output: float = 20.0
    per_mac: float = 4.0


@cache
def costs() -> dict[str, Cost]:
    """Return the fitted figures by function name."""
    text = resources.files("tinydeploy.plan").joinpath("costs.json").read_text("utf-8")
    return {name: Cost(*figures) for name, figures in json.loads(text).items()}


def work(graph: Graph, position: int, kernel: Kernel, whole: bool) -> tuple[int, int, int]:
    """Return (calls, output elements, MACs) of one inference of a node."""
    call = Call(graph, graph.nodes[position])
    op = op_named(call.node.op)
    if whole or (op.region(call) is None and kernel.accumulators is None):
        calls = 1
    else:
        rows = call.input().rows if kernel.accumulators else op.rows(call)
        calls = -(-rows // kernel.band)
    elements = call.input().elements if kernel.accumulators else call.output.elements
    return calls, elements, op.macs(call)


def instructions(graph: Graph, position: int, kernel: Kernel, whole: bool) -> float:
    """Estimate the instructions of a node, called once (`whole`) or band by band."""
    cost = costs().get(kernel.function, Cost())
    calls, outputs, macs = work(graph, position, kernel, whole)
    return cost.per_call * calls + cost.per_output * outputs + cost.per_mac * macs


def layer_instructions(graph: Graph, profile: IntegerProfile, selection: Selection) -> float:
    """Estimate the instructions of a network whose nodes all run whole."""
    total = 0.0
    for position, kernel in enumerate(selection.kernels):
        if kernel is not None:
            whole = kernel.whole(selection.site(graph, position, profile))
            total += instructions(graph, position, kernel, whole)
    return total
