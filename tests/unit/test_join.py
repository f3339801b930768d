"""Joins and slices without copies: parts written in place, the same bytes on the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hostlib import compile_all
from kernel_lab import Net

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._addsub import Attributes as AddAttributes
from tinydeploy.ops.concatenation import Attributes as ConcatAttributes
from tinydeploy.ops.execute import run_all
from tinydeploy.ops.reshape import Attributes as ReshapeAttributes
from tinydeploy.ops.strided_slice import Attributes as SliceAttributes
from tinydeploy.plan import search
from tinydeploy.plan.join import join_in_memory, joined_at
from tinydeploy.plan.liveness import homes
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.search import Wanted, plan_again
from tinydeploy.plan.select import portable

LITERT = PROFILES["litert"]
WIDTH, CHANNELS = 3, 4


def like(net: Net, op: str, inputs: list[int], attributes: object) -> int:
    """Append a node whose output has the scale and zero point of its first input."""
    out = net._finish(op, inputs, attributes, 1, 0)
    net.tensors[out] = replace(net.tensors[out], quantization=net.tensors[inputs[0]].quantization)
    return out


def joined(net: Net, parts: list[int], axis: int = 1) -> int:
    return like(net, "CONCATENATION", parts, ConcatAttributes(axis))


def sliced(net: Net, x: int, first: int, rows: int) -> int:
    count = (1, rows, WIDTH, CHANNELS)
    return like(net, "STRIDED_SLICE", [x], SliceAttributes((0, first, 0, 0), (1,) * 4, count, ()))


def reshaped(net: Net, x: int) -> int:
    return like(net, "RESHAPE", [x], ReshapeAttributes(net.tensors[x].shape))


def random_network(seed: int) -> Graph:
    """Return images of one width, joined, sliced, viewed, overwritten in place and computed on."""
    random = np.random.default_rng(seed)
    net = Net(random, f"net{seed}")
    known = [net.input(int(random.integers(1, 5)), WIDTH, CHANNELS, zero=3) for _ in range(2)]
    for _ in range(int(random.integers(3, 14))):
        x, y = (int(i) for i in random.choice(known, 2))
        rows = net.tensors[x].shape[1]
        kind = random.choice(["join", "join", "slice", "view", "conv", "in place", "plus"])
        if kind == "join" and rows + net.tensors[y].shape[1] < 40:
            known.append(joined(net, [x, y] if random.random() < 0.9 else [x]))
        elif kind == "slice":
            first = int(random.integers(0, rows))
            known.append(sliced(net, x, first, int(random.integers(1, rows - first + 1))))
        elif kind == "view":
            known.append(reshaped(net, x))
        elif kind == "conv":
            z = net.conv(x, CHANNELS, zero=3)
            net.tensors[z] = replace(net.tensors[z], quantization=net.tensors[x].quantization)
            known.append(z)
        elif kind == "in place":
            z = net._finish("QUANTIZE", [x], None, 1, 3)
            net.tensors[z] = replace(net.tensors[z], quantization=net.tensors[x].quantization)
            known.append(z)
        elif net.tensors[x].shape == net.tensors[y].shape:
            known.append(like(net, "ADD", [x, y], AddAttributes("NONE")))
        if len(known) > 5:  # so that tensors die
            known.pop(int(random.integers(0, len(known) - 1)))
    outputs = [known[-1], *(int(i) for i in random.choice(known, 2))]
    net.outputs = list(dict.fromkeys(outputs))
    return net.graph()


def check_on_the_host(graphs: list[Graph], plans: list) -> None:
    random = np.random.default_rng(0)
    hosts = compile_all(graphs, LITERT, plans=plans)
    for graph, host in zip(graphs, hosts, strict=True):
        inputs = [
            random.integers(-128, 128, graph.tensors[i].shape).astype(np.int8) for i in graph.inputs
        ]
        values = run_all(graph, inputs, LITERT)
        for index, got in zip(graph.outputs, host.run(inputs), strict=True):
            np.testing.assert_array_equal(got, values[index], graph.name)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("first", [0, 60])
def test_random_networks_give_the_same_without_copies(first: int, streamed: bool) -> None:
    graphs = [random_network(seed) for seed in range(first, first + 60)]
    plans, freed = [], 0
    for graph in graphs:
        plain = portable(graph, LITERT)
        selection = join_in_memory(graph, LITERT, plain, streamed)
        freed += sum(a is not b for a, b in zip(selection.kernels, plain.kernels, strict=True))
        if streamed:
            choice, _ = search.plan(graph, LITERT, selection, Wanted("streamed"), "greedy")
            plan = choice.plan
        else:
            plan = plan_layers(graph, "greedy", selection, LITERT)
            assert plan.lower_bound_bytes <= plan_layers(graph, "greedy").lower_bound_bytes
        recorded = [p for p, k in enumerate(selection.kernels) if k is None]
        assert joined_at(graph, plain, recorded) == selection
        again = plan_again(
            graph, LITERT, selection, plan.segments, plan.offsets, plan.lower_bound_bytes,
            plan.allocator,
        )  # fmt: skip
        assert again == plan
        plans.append(plan)
    assert freed > (20 if streamed else 100)
    check_on_the_host(graphs, plans)


def kernels_of(net: Net) -> list[str]:
    graph = net.graph()
    selection = join_in_memory(graph, LITERT, portable(graph, LITERT))
    check_on_the_host([graph], [plan_layers(graph, "greedy", selection)])
    return [
        node.op for node, k in zip(graph.nodes, selection.kernels, strict=True) if k is not None
    ]


def image(net: Net, rows: int = 2) -> int:
    return net.input(rows, WIDTH, CHANNELS, zero=3)


def computed(net: Net, x: int) -> int:
    out = net.conv(x, CHANNELS, zero=3)
    net.tensors[out] = replace(net.tensors[out], quantization=net.tensors[x].quantization)
    return out


def test_parts_are_written_into_the_whole() -> None:
    net = Net(np.random.default_rng(0))
    x = image(net)
    net.output(joined(net, [computed(net, x), reshaped(net, computed(net, x)), x]))
    assert kernels_of(net) == ["CONV_2D", "CONV_2D"]


def test_joins_of_joins_nest() -> None:
    net = Net(np.random.default_rng(0))
    a, b, c = (computed(net, image(net)) for _ in range(3))
    net.output(computed(net, joined(net, [a, joined(net, [b, c])])))
    assert kernels_of(net) == ["CONV_2D"] * 4


def test_duplicates_are_copied() -> None:
    net = Net(np.random.default_rng(0))
    x = computed(net, image(net))
    net.output(joined(net, [x, x]))
    assert kernels_of(net) == ["CONV_2D", "CONCATENATION"]


def test_what_is_joined_twice_is_copied_once() -> None:
    net = Net(np.random.default_rng(0))
    x, y = computed(net, image(net)), computed(net, image(net))
    net.output(joined(net, [x, y]))
    net.output(joined(net, [y, x]))
    assert kernels_of(net).count("CONCATENATION") == 1


def test_parts_that_begin_at_odd_addresses_are_copied() -> None:
    net = Net(np.random.default_rng(0))
    x = net.input(1, 1, 5, zero=3)
    y = net.conv(x, 7, zero=3)
    net.tensors[y] = replace(net.tensors[y], quantization=net.tensors[x].quantization)
    net.output(joined(net, [x, y], axis=3))
    assert kernels_of(net) == ["CONV_2D", "CONCATENATION"]


def test_channels_of_several_pixels_are_copied() -> None:
    net = Net(np.random.default_rng(0))
    x = image(net)
    net.output(joined(net, [x, computed(net, x)], axis=3))
    assert kernels_of(net) == ["CONV_2D", "CONCATENATION"]


def test_a_slice_that_would_keep_a_large_tensor_alive_is_copied() -> None:
    net = Net(np.random.default_rng(0))
    x = computed(net, image(net, 30))
    y = sliced(net, x, 7, 1)
    large = like(net, "ADD", [computed(net, x), x], AddAttributes("NONE"))
    large = like(net, "ADD", [computed(net, large), large], AddAttributes("NONE"))
    net.output(joined(net, [large, y]))
    assert "STRIDED_SLICE" in kernels_of(net)


def test_slices_of_one_piece_are_views() -> None:
    net = Net(np.random.default_rng(0))
    x = computed(net, image(net, 5))
    net.output(computed(net, sliced(net, x, 1, 4)))
    net.output(sliced(net, x, 0, 2))
    assert kernels_of(net) == ["CONV_2D"] * 2


@pytest.mark.parametrize("seed", range(40))
def test_what_an_operator_says_of_its_parts_is_what_it_computes(seed: int) -> None:
    """Bytes of the whole, from the start named, are the part: for random slices and joins."""
    random = np.random.default_rng(seed)
    net = Net(random)
    shape = tuple(int(v) for v in random.integers(1, 4, 3))
    x, y = net.input(*shape), net.input(*shape)
    begin, stride, count = zip(
        *(_range(random, size) for size in net.tensors[x].shape), strict=True
    )
    net.output(like(net, "STRIDED_SLICE", [x], SliceAttributes(begin, stride, count, ())))
    net.output(joined(net, [x, y], int(random.integers(0, 4)) if shape[0] == 1 else 1))
    graph = net.graph()
    inputs = [np.arange(graph.tensors[i].elements, dtype=np.int8) for i in graph.inputs]
    inputs[1] += np.int8(inputs[0].size)
    values = run_all(
        graph,
        [v.reshape(graph.tensors[i].shape) for v, i in zip(inputs, graph.inputs, strict=True)],
        LITERT,
    )
    for node in graph.nodes:
        places = op_named(node.op).inside(Call(graph, node))
        for place in places:
            outer, inner = values[place.outer].reshape(-1), values[place.inner].reshape(-1)
            np.testing.assert_array_equal(outer[place.start :][: inner.size], inner)
        if node.op == "STRIDED_SLICE" and not places:
            assert (np.diff(values[node.outputs[0]].reshape(-1)) != 1).any(), "is one piece"


def _range(random: np.random.Generator, size: int) -> tuple[int, int, int]:
    if random.random() < 0.5:
        return 0, 1, size
    begin = int(random.integers(0, size))
    stride = int(random.choice([1, 1, 2, -1]))
    most = len(range(begin, size if stride > 0 else -1, stride))
    return begin, stride, int(random.integers(1, most + 1))


def test_views_have_homes() -> None:
    net = Net(np.random.default_rng(0))
    x = image(net)
    y = reshaped(net, reshaped(net, x))
    assert homes(net.graph(), [None, None]) == {x + 1: (x, 0), y: (x, 0)}
