"""Estimates of instructions: every kernel has figures, and they are looked up by goal and use."""

import numpy as np
import pytest
from kernel_lab import Net

from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import registry
from tinydeploy.plan import cost
from tinydeploy.plan.search import SLACK, Wanted, plan
from tinydeploy.plan.select import Core, select

FUNCTIONS = sorted(
    {k.function for op in registry().values() for k in (*op.kernels, *op.reductions)}
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kernel_has_figures(function: str) -> None:
    """Whoever adds a kernel measures it: tools/fit-costs."""
    names = {n.removesuffix(cost.STREAMED) for figures in cost.costs().values() for n in figures}
    assert function in names


def test_figures_belong_to_kernels() -> None:
    for figures in cost.costs().values():
        for name, c in figures.items():
            assert name.removesuffix(cost.STREAMED).removesuffix(cost.STORED) in FUNCTIONS
            each = (c.per_call, c.per_output, c.per_mac, c.per_weight)
            assert min(each) >= 0 and max(each) > 0, name


def test_figures_of_the_use_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "balanced": {"a": cost.Cost(1), "a/streamed": cost.Cost(2), "b": cost.Cost(3)},
        "speed": {"a": cost.Cost(4), "c": cost.Cost(5), "d/streamed": cost.Cost(6)},
    }
    known["balanced"]["c/stored"] = cost.Cost(7)
    monkeypatch.setattr(cost, "costs", lambda: known)
    wanted = {
        ("a", "balanced"): 1, ("a/streamed", "balanced"): 2, ("a", "size"): 1, ("a", "speed"): 4,
        ("a/streamed", "speed"): 4, ("b/streamed", "balanced"): 3, ("b", "speed"): 3,
        ("c", "balanced"): 5, ("a/stored", "balanced"): 4, ("c/stored", "balanced"): 7,
        ("d/stored", "balanced"): 6, ("b/stored", "balanced"): 3,
    }  # fmt: skip
    for use, per_call in wanted.items():
        assert cost.cost_of(*use).per_call == per_call, use
    assert cost.cost_of("new", "balanced") == cost.Cost()


def test_work_of_a_convolution() -> None:
    """Portable C: a call per row; each goes through the weights of a pixel."""
    net = Net(np.random.default_rng(0))
    net.output(net.conv(net.input(6, 5, 4), 8, (3, 3)))
    graph, profile = net.graph(), PROFILES["litert"]
    w = cost.work(graph, profile, select(graph, profile), 0)
    assert (w.calls, w.outputs, w.macs) == (6, 6 * 5 * 8, 6 * 5 * 8 * 36)
    assert w.weights == 6 * 8 * 36


@pytest.mark.parametrize("optimize", ["speed", "balanced", "size"])
def test_default_plan_is_the_smallest_that_the_goal_allows(optimize: str) -> None:
    net = Net(np.random.default_rng(0))
    x = net.conv(net.input(24, 24, 3), 8, (3, 3), 2)
    for filters in (16, 24):
        x = net.conv(net.depthwise(x), filters)
    net.output(x)
    graph, profile = net.graph(), PROFILES["litert"]
    selection = select(graph, profile, Core("armv7e-m", frozenset({"mul", "dsp"}), optimize))
    chosen, front = plan(graph, profile, selection, Wanted(), "greedy")
    fastest = min(c.instructions for c in front)
    allowed = [c for c in front if c.instructions <= SLACK[optimize] * fastest]
    assert len(front) > 1
    assert chosen.plan.arena_bytes == min(c.plan.arena_bytes for c in allowed)
    assert optimize != "speed" or chosen.instructions == fastest
