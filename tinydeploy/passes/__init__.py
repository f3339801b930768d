"""Rewrite Graphs without changing a result bit, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinydeploy.errors import MismatchError
from tinydeploy.ir import Graph
from tinydeploy.ir.verify import verify_graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops.checks import run_checks
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes.border import fold_float_border
from tinydeploy.passes.channels import remove_channels
from tinydeploy.passes.fold import fold_constants
from tinydeploy.passes.interface import check_interface
from tinydeploy.passes.pads import fold_pads
from tinydeploy.passes.prune import remove_unused
from tinydeploy.passes.tables import fold_float_pairs, fold_tables
from tinydeploy.passes.transposes import sink_transposes
from tinydeploy.passes.views import find_views

# Larger networks fit no microcontroller; running one here could take gigabytes.
_MAX_PROVED = 1 << 23

Pass = Callable[[Graph, IntegerProfile], Graph]

# First what makes the network integer only and legal, then what makes it cheaper.
LEGALISE: tuple[Pass, ...] = (fold_float_pairs, fold_float_border, fold_constants, remove_unused)
PASSES: tuple[Pass, ...] = (
    fold_tables, sink_transposes, find_views, fold_pads, remove_channels, remove_unused,
)  # fmt: skip


def run_passes(graph: Graph, profile: IntegerProfile, *, optimise: bool = True) -> Graph:
    """Apply the passes in order; each must leave the outputs of a random input as they are.

    Raises ModelError when a node remains that no operator accepts, or an input or output that is
    not int8 or int16.
    """
    for rewrite in LEGALISE:
        graph = rewrite(graph, profile)
        verify_graph(graph)
    for node in graph.nodes:
        run_checks(op_named(node.op), Call(graph, node))
    check_interface(graph)
    for rewrite in PASSES if optimise else ():
        before, graph = graph, rewrite(graph, profile)
        prove(before, graph, profile, rewrite.__name__)
    return graph


def prove(before: Graph, after: Graph, profile: IntegerProfile, name: str) -> None:
    """Check the invariants of a rewritten graph, and its outputs against those before.

    Raises MismatchError naming the rewrite; the outputs are those of one random input.
    """
    verify_graph(after)
    for node in after.nodes:
        call = Call(after, node)
        run_checks(op_named(node.op), call)
        shapes = [t.shape for t in call.outputs]
        if op_named(node.op).shape(call) != shapes:
            raise MismatchError(f"the pass {name} broke the shapes of node '{node.name}'")
    if after.nodes == before.nodes or sum(t.elements for t in before.tensors) > _MAX_PROVED:
        return
    random = np.random.default_rng(0)
    inputs = []
    for tensor in (before.tensors[i] for i in before.inputs):
        low, high = tensor.dtype.bounds
        inputs.append(random.integers(low, high + 1, tensor.shape).astype(tensor.dtype.numpy))
    pairs = zip(
        run_outputs(before, inputs, profile), run_outputs(after, inputs, profile), strict=True
    )
    if not all((a == b).all() for a, b in pairs):
        raise MismatchError(f"the pass {name} changed a result", hint="please report the model")
