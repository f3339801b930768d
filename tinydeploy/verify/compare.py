"""Turn a device and samples into a verdict: every output bit against the integer reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.execute import run_all
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.verify.samples import Samples, as_declared

Array = NDArray[Any]


class Machine(Protocol):
    """What is needed of a device: access to its arena, and to run the network whole or by step."""

    def write(self, offset: int, data: bytes) -> None: ...
    def read(self, offset: int, length: int) -> bytes: ...
    def invoke(self, inputs: Sequence[bytes] = ()) -> list[int]: ...
    def step(self, index: int, inputs: Sequence[bytes] = ()) -> int: ...


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Name the first value that differs, and where it first went wrong.

    `node` and `tensor` are the first in execution order whose values differ from the reference;
    they are empty when only an expected file disagrees.
    """

    sample: int
    node: int | None
    op: str
    name: str
    tensor: str
    index: tuple[int, ...]
    got: float
    expected: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold what was compared and what was found.

    `counts` are the counter's ticks per step, of the first sample; `outputs` are the device's.
    """

    samples: int
    values: int
    differing: int
    max_abs_diff: float
    oracle: str
    first_mismatch: Mismatch | None
    counts: tuple[int, ...]
    outputs: tuple[tuple[Array, ...], ...]
    reference_outputs: tuple[tuple[Array, ...], ...]

    @property
    def bit_exact(self) -> bool:
        return self.differing == 0


def verify(
    machine: Machine,
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    samples: Samples,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verdict:
    """Run every sample on the device and compare all outputs, bit for bit.

    Both comparisons must hold: with the reference, and with `samples.expected` where given.
    Raises DeviceError when the device fails.
    """
    differing = values = 0
    largest = 0.0
    first: Mismatch | None = None
    counts: tuple[int, ...] = ()
    outputs, reference_outputs = [], []
    for k, inputs in enumerate(samples.inputs):
        oracle = run_all(graph, inputs, profile)
        ticks = machine.invoke(write_inputs(machine, graph, plan, inputs))
        counts = counts or tuple(ticks)
        got = [_read_tensor(machine, graph, plan, o) for o in graph.outputs]
        outputs.append(tuple(got))
        reference_outputs.append(tuple(oracle[o] for o in graph.outputs))
        wrong = False
        for slot, wanted in _wanted(graph, samples, k, oracle):
            have = as_declared(graph, slot, got[slot]) if wanted.dtype.kind == "f" else got[slot]
            unequal = have != wanted
            values += wanted.size
            if unequal.any():
                wrong = True
                differing += int(unequal.sum())
                distance = np.abs(have.astype(np.float64) - wanted.astype(np.float64))
                largest = max(largest, float(distance.max()))
        if wrong and first is None:
            first = _locate(machine, graph, plan, inputs, oracle, k) or _at_output(
                graph, samples, k, oracle, got
            )
        progress(k + 1, len(samples.inputs))
    return Verdict(
        len(samples.inputs),
        values,
        differing,
        largest,
        "reference+expected" if samples.expected else "reference",
        first,
        counts,
        tuple(outputs),
        tuple(reference_outputs),
    )


def _wanted(
    graph: Graph, samples: Samples, k: int, oracle: list[Array]
) -> Iterator[tuple[int, Array]]:
    """Yield (output slot, values it must have) for each oracle there is."""
    for slot, o in enumerate(graph.outputs):
        yield slot, oracle[o]
        if samples.expected is not None:
            yield slot, samples.expected[k][slot]


def write_inputs(
    machine: Machine, graph: Graph, plan: MemoryPlan, inputs: tuple[Array, ...]
) -> tuple[bytes, ...]:
    """Write one sample to where the plan places the inputs; return what a run must be given.

    That is nothing, or all of it where the plan has the inputs streamed.
    """
    if plan.streamed_input:
        return tuple(array.tobytes() for array in inputs)
    for i, array in zip(graph.inputs, inputs, strict=True):
        machine.write(plan.offset_of(i), array.tobytes())
    return ()


def _read_tensor(machine: Machine, graph: Graph, plan: MemoryPlan, index: int) -> Array:
    tensor, layout = graph.tensors[index], plan.selection.layout(index)
    data = machine.read(plan.offset_of(index), layout.bytes(tensor))
    return layout.unpack(data, tensor)


def _locate(
    machine: Machine,
    graph: Graph,
    plan: MemoryPlan,
    inputs: tuple[Array, ...],
    oracle: list[Array],
    sample: int,
) -> Mismatch | None:
    """Run step by step and return the first node whose output differs, None if none does."""
    streamed = write_inputs(machine, graph, plan, inputs)
    for step, segment in enumerate(plan.segments):
        machine.step(step, streamed)
        position = segment.nodes[-1]
        node = graph.nodes[position]
        for o in node.outputs:
            got = _read_tensor(machine, graph, plan, o)
            if (got != oracle[o]).any():
                return _mismatch(sample, position, node.op, node.name, graph, o, got, oracle[o])
    return None


def _mismatch(
    sample: int,
    position: int | None,
    op: str,
    name: str,
    graph: Graph,
    tensor: int,
    got: Array,
    wanted: Array,
) -> Mismatch:
    where = np.unravel_index(int(np.argmax((got != wanted).reshape(-1))), got.shape)
    index = tuple(int(v) for v in where)
    return Mismatch(
        sample, position, op, name, graph.tensors[tensor].name, index,
        float(got[index]), float(wanted[index]),
    )  # fmt: skip


def _at_output(
    graph: Graph, samples: Samples, k: int, oracle: list[Array], got: list[Array]
) -> Mismatch | None:
    """Return the first differing output value; the steps themselves equal the reference."""
    for slot, wanted in _wanted(graph, samples, k, oracle):
        have = as_declared(graph, slot, got[slot]) if wanted.dtype.kind == "f" else got[slot]
        if (have != wanted).any():
            return _mismatch(k, None, "", "", graph, graph.outputs[slot], have, wanted)
    return None
