"""Make single nodes and short chains of any shape, run them on a target, compare and count.

As a program it measures: python tests/kernel_lab.py [balanced] [w4] mps2-an386 pw:25,5,64,64
Weights of 4 or 2 bits are those of w4 and w2.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from tinydeploy.build.firmware import build_firmware
from tinydeploy.codegen import Provenance, generate
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._elementwise import Attributes as AddAttributes
from tinydeploy.ops._window import Window
from tinydeploy.ops.base import Pace
from tinydeploy.ops.fully_connected import Attributes as DenseAttributes
from tinydeploy.pipeline import core_of
from tinydeploy.plan.layout import MemoryPlan, Segment
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.rows import paced
from tinydeploy.plan.search import plan_segments
from tinydeploy.plan.select import Selection, select
from tinydeploy.run.device import open_device
from tinydeploy.targets import Target, load_target
from tinydeploy.verify.compare import Verdict, verify
from tinydeploy.verify.samples import random_samples

_ARENA_STEP = 64 * 1024
_CANARY_BYTES = 256
_FOLDERS: dict[str, tempfile.TemporaryDirectory[str]] = {}


class Net:
    """Build a Graph node by node; every method returns the index of a tensor."""

    def __init__(self, random: Generator, name: str = "lab", bits: int = 8) -> None:
        self.random = random
        self.bits = bits
        self.name = name
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, shape: tuple[int, ...], scale: float, zero: int) -> int:
        name = f"t{len(self.tensors)}"
        return self.add(Tensor(name, shape, DType.INT8, Quantization((scale,), (zero,))))

    def input(self, *shape: int, zero: int | None = None) -> int:
        zero = int(self.random.choice([-128, -17, 0, 5, 127])) if zero is None else zero
        index = self.activation((1, *shape), 0.05, zero)
        self.inputs.append(index)
        return index

    def output(self, index: int) -> int:
        self.outputs.append(index)
        return index

    def _weights(self, shape: tuple[int, ...], axis: int, fan_in: int) -> tuple[int, int]:
        """Weights of varied scales, some of them extreme; bias of the size of a typical sum."""
        channels = shape[axis]
        least = -(1 << self.bits - 1)
        data = self.random.integers(least + 1, -least, shape)
        data[self.random.random(shape) < 0.02] = least
        unit = 0.004 * 2.0 ** (8 - self.bits)
        largest = 3 if self.bits == 8 else 1  # multipliers of 1 and more are rare
        scales = np.float32(unit * 2.0 ** self.random.uniform(-3, largest, channels))
        q = Quantization(tuple(map(float, scales)), (0,) * channels, axis)
        w = self.add(Tensor("w", shape, DType.INT8, q, constant(data.astype(np.int8))))
        size = int(3000 * math.sqrt(fan_in)) >> 8 - self.bits
        bias = self.random.integers(-size, size + 1, channels).astype(np.int32)
        return w, self.add(Tensor("b", (channels,), DType.INT32, None, constant(bias)))

    def _finish(
        self, op: str, inputs: list[int], attributes: Any, fan_in: int, zero: int | None
    ) -> int:
        """Infer the shape; the output's scale spreads the sums over the int8 range."""
        zero = int(self.random.choice([-128, -128, 5, 0, 127])) if zero is None else zero
        out = self.activation((1,), 0.05 * 0.004 * 60 * math.sqrt(fan_in), zero)
        node = Node(f"{op.lower()}_{len(self.nodes)}", op, tuple(inputs), (out,), attributes)
        self.nodes.append(node)
        call = Call(self.graph(), node)
        (shape,) = op_named(op).shape(call)
        self.tensors[out] = replace(self.tensors[out], shape=shape)
        return out

    def conv(self, x: int, filters: int, kernel: tuple[int, int] = (1, 1), stride: int = 1,
             dilation: int = 1, padding: str = "SAME", activation: str = "NONE",
             groups: int = 1, zero: int | None = None) -> int:  # fmt: skip
        depth = self.tensors[x].shape[3] // groups
        fan_in = kernel[0] * kernel[1] * depth
        w, b = self._weights((filters, *kernel, depth), 0, fan_in)
        window = Window(stride, stride, dilation, dilation, padding, activation)
        return self._finish("CONV_2D", [x, w, b], window, fan_in, zero)

    def depthwise(self, x: int, kernel: tuple[int, int] = (3, 3), stride: int = 1,
                  dilation: int = 1, padding: str = "SAME", activation: str = "NONE",
                  multiplier: int = 1, zero: int | None = None,
                  pads: tuple[int, int, int, int] | None = None) -> int:  # fmt: skip
        channels = self.tensors[x].shape[3] * multiplier
        w, b = self._weights((1, *kernel, channels), 3, kernel[0] * kernel[1])
        window = Window(stride, stride, dilation, dilation, padding, activation, *(pads or ()))
        return self._finish("DEPTHWISE_CONV_2D", [x, w, b], window, kernel[0] * kernel[1], zero)

    def dense(self, x: int, units: int, activation: str = "NONE", zero: int | None = None) -> int:
        depth = math.prod(self.tensors[x].shape)
        w, b = self._weights((units, depth), 0, depth)
        return self._finish(
            "FULLY_CONNECTED", [x, w, b], DenseAttributes(activation, False), depth, zero
        )

    def plus(self, a: int, b: int) -> int:
        return self._finish("ADD", [a, b], AddAttributes("NONE"), 1, None)

    def node(self, op: str, inputs: Sequence[int], attributes: Any = None) -> int:
        return self._finish(op, list(inputs), attributes, 1, None)

    def graph(self) -> Graph:
        return Graph(self.name, tuple(self.tensors), tuple(self.nodes), tuple(self.inputs),
                     tuple(self.outputs))  # fmt: skip


def rescale(net: Net, tensor: int, factor: float) -> None:
    """Divide the scale of the last node's output, so that its shifts move up."""
    q = net.tensors[tensor].quantization
    assert q is not None
    changed = Quantization((q.scales[0] / factor,), q.zero_points)
    net.tensors[tensor] = replace(net.tensors[tensor], quantization=changed)


def sharpen(net: Net, value: int) -> None:
    """Set the weights of the last node to one value: the largest sums there can be."""
    w = net.nodes[-1].inputs[1]
    assert w is not None
    shape = net.tensors[w].shape
    net.tensors[w] = replace(net.tensors[w], data=constant(np.full(shape, value, np.int8)))


def longest_segments(rows: Selection, pace: Pace = "even") -> list[Segment]:
    """Return segments of the nodes that have a kernel by rows, up to 30 of them, and the others."""
    segments: list[Segment] = []
    for position, kernel in enumerate(rows.kernels):
        last = segments[-1] if segments else None
        if kernel is None:
            segments.append(Segment("layer", (position,)))
        elif last is not None and last.kind == "streamed" and len(last.nodes) < 30:
            segments[-1] = replace(last, nodes=(*last.nodes, position), paces=(*last.paces, pace))
        else:
            segments.append(Segment("streamed", (position,), paces=(pace,)))
    return segments


def run_on(
    target: Target,
    graph: Graph,
    optimize: str = "balanced",
    profile: str = "litert",
    samples: int = 4,
    functions: Sequence[str] = (),
    streamed: bool = False,
    pace: Pace = "even",
) -> tuple[Verdict, tuple[int, ...], Selection]:
    """Build and run a graph; return the verdict, the counts per node and the kernels used.

    `functions` are kernels that must have been chosen (by function name) somewhere. `streamed`
    runs every node row by row that can be, in segments as long as possible, at a pace.
    """
    semantics = PROFILES[profile]
    selection = select(graph, semantics, core_of(target, optimize))
    if streamed:
        rows = paced(graph, semantics, selection, stored=pace == "stored")[pace]
        segments = longest_segments(rows, pace)
        plan = plan_segments(graph, semantics, selection, segments, "greedy")
    else:
        plan = plan_layers(graph, "greedy", selection, semantics)
    used = {k.function for k in plan.selection.kernels if k}
    assert used.issuperset(functions), f"wanted {functions}, chosen {sorted(used)}"
    verdict, counts = run_plan(target, graph, plan, semantics, samples)
    return verdict, counts, selection


def run_plan(
    target: Target, graph: Graph, plan: MemoryPlan, semantics: IntegerProfile, samples: int
) -> tuple[Verdict, tuple[int, ...]]:
    """Build and run a planned graph; return the verdict and the counts per node.

    Builds for one target share a folder and a size of arena, so that the firmware around the model
    is compiled once. What follows the model's own arena must stay as it was at start.
    """
    generated = generate(graph, plan, semantics, Provenance("lab", "", target.name, "lab"))
    if target.name not in _FOLDERS:
        _FOLDERS[target.name] = tempfile.TemporaryDirectory()
    room = -(-(plan.arena_bytes + _CANARY_BYTES) // _ARENA_STEP) * _ARENA_STEP
    firmware = build_firmware(
        generated.sources, target, room, Path(_FOLDERS[target.name].name),
        max_steps=max(256, len(plan.segments)),
    )  # fmt: skip
    where = "host" if target.architecture == "host" else "qemu"
    with open_device(firmware, target, where) as device:
        verdict = verify(device, graph, plan, semantics, random_samples(graph, samples))
        counts = tuple(device.to_unit(t) for t in verdict.counts)
        behind = device.read(plan.arena_bytes, _CANARY_BYTES)
    assert behind == b"\xa5" * _CANARY_BYTES, "wrote above the arena"
    return verdict, counts


def case(text: str, random: Generator, bits: int = 8) -> Graph:
    """Return a graph from a short text: KIND:H,W,C,... as in the usage below."""
    kind, _, numbers = text.partition(":")
    n = [int(v) for v in numbers.split(",")]
    net = Net(random, bits=bits)
    if kind == "pw":  # height, width, channels, filters
        net.output(net.conv(net.input(*n[:3]), n[3], zero=-128))
    elif kind == "conv":  # height, width, channels, filters, kernel, stride
        net.output(net.conv(net.input(*n[:3]), n[3], (n[4], n[4]), n[5], zero=-128))
    elif kind == "dw":  # height, width, channels, stride [, kernel]: behind a pointwise one
        k = n[4] if len(n) > 4 else 3
        x = net.conv(net.input(n[0], n[1], 4), n[2], zero=-128)
        net.output(net.depthwise(x, (k, k), n[3], zero=-128))
    elif kind == "fc":  # inputs, outputs
        net.output(net.dense(net.input(n[0]), n[1], zero=-128))
    elif kind == "add":  # height, width, channels
        net.output(net.plus(net.input(*n), net.input(*n)))
    else:
        raise SystemExit(f"unknown case {kind}: pw, conv, dw, fc, add")
    return net.graph()


def main() -> None:
    """Print instructions, MAC per instruction and the kernel of each node of each case."""
    optimize = "balanced"
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("speed", "balanced", "size"):
        optimize = arguments.pop(0)
    bits = 8
    if arguments and arguments[0] in ("w2", "w4", "w8"):
        bits = int(arguments.pop(0)[1:])
    target = load_target(arguments[0])
    for text in arguments[1:]:
        graph = case(text, np.random.default_rng(0), bits)
        verdict, counts, selection = run_on(target, graph, optimize)
        state = "exact" if verdict.bit_exact else f"WRONG {verdict.first_mismatch}"
        for node, kernel, count in zip(graph.nodes, selection.kernels, counts, strict=True):
            macs = op_named(node.op).macs(Call(graph, node))
            name = kernel.function if kernel else ""
            print(f"{text:24} {state} {name:28} {count:>10,} instr {macs / count:.3f} MAC/instr")


if __name__ == "__main__":
    main()
