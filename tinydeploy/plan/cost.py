"""Turn a node and its kernel into an estimate of instructions, from figures measured in QEMU.

estimate = per_call * calls + per_output * output elements + per_mac * multiply-accumulates
+ per_weight * weights gone through, where each call goes through the weights of one pixel, once or
once per few pixels; the figures of each kernel were fitted to counts of whole networks
(`tools/fit-costs`). They serve to compare plans: what is reported about a firmware is counted, not
estimated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import op_named
from tinydeploy.plan.select import Selection

CALL = 12.0  # instructions of the loop around the calls of a streamed segment
STREAMED = "/streamed"  # follows the name of a function whose figures in such segments differ
STORED = "/stored"  # the same where its weights are stored wider


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold instructions per call (row pointers included), output element, MAC and weight."""

    per_call: float = 120.0
    per_output: float = 20.0
    per_mac: float = 4.0
    per_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """Count what one inference of a node takes; `weights` are those of a pixel, times calls."""

    calls: int
    outputs: int
    macs: int
    weights: float


@cache
def costs() -> dict[str, dict[str, Cost]]:
    """Return the fitted figures by goal and function name."""
    text = resources.files("tinydeploy.plan").joinpath("costs.json").read_text("utf-8")
    return {
        goal: {name: Cost(*figures) for name, figures in functions.items()}
        for goal, functions in json.loads(text).items()
    }


def cost_of(name: str, optimize: str) -> Cost:
    """Return the figures of a kernel function by name, rough ones if it has none yet.

    Where a goal has none, those of another serve.
    """
    function, _, how = name.partition("/")
    known = [(optimize, name), (optimize, function)]
    if "/" + how == STORED:
        known = [(optimize, name), ("speed", function + STREAMED), ("speed", function)]
    known += [(goal, n) for goal in costs() for n in (name, function)]
    return next((costs()[g][n] for g, n in known if n in costs().get(g, {})), Cost())


def name_of(selection: Selection, position: int) -> str:
    """Return the name that the figures of a node's kernel have."""
    kernel = selection.kernels[position]
    assert kernel is not None
    if selection.pace(position) == "stored":
        return kernel.function + STORED
    return kernel.function + STREAMED * (position in selection.streamed)


def work(graph: Graph, profile: IntegerProfile, selection: Selection, position: int) -> Work:
    """Return what one inference of a node takes."""
    site, kernel = selection.site(graph, position, profile), selection.kernels[position]
    call = site.call  # of several rows as one where they are computed so
    assert kernel is not None
    op = op_named(call.node.op)
    calls, elements = 1, call.output.elements
    if kernel.accumulators is not None:
        calls, elements = -(-call.input().rows // kernel.band), call.input().elements
    elif op.region(call) is not None and not kernel.whole(site):
        calls = -(-op.rows(call) // kernel.band)
    macs = op.macs(call)
    channels = call.output.shape[-1] if call.output.shape else 1
    return Work(calls, elements, macs, calls * macs * channels / call.output.elements)


def instructions(
    graph: Graph, profile: IntegerProfile, selection: Selection, position: int
) -> float:
    """Estimate the instructions of a node that has work to do."""
    w = work(graph, profile, selection, position)
    c = cost_of(name_of(selection, position), selection.core.optimize)
    total = c.per_call * w.calls + c.per_output * w.outputs
    return total + c.per_mac * w.macs + c.per_weight * w.weights


def layer_instructions(graph: Graph, profile: IntegerProfile, selection: Selection) -> float:
    """Estimate the instructions of a network whose nodes all run whole."""
    return sum(
        instructions(graph, profile, selection, position)
        for position, kernel in enumerate(selection.kernels)
        if kernel is not None
    )
