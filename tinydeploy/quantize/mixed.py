"""Turn budgets of flash and RAM into bits per tensor: those that hold them at least loss.

What each tensor's bits cost at the output is known (quantize.sensitivity), and such errors add
up. The bytes of weights add up, too: which weights get 8, 4 or 2 bits is a knapsack of multiple
choices, solved exactly. RAM does not add up, a plan of the memory says what it is: from that, the
tensors alive where most is needed are made narrow, the least costly first, until the plan fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tinydeploy.errors import FitError
from tinydeploy.ir import Graph
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.narrow import narrowed
from tinydeploy.quantize.quantize import Quantized, Studied, store
from tinydeploy.quantize.sensitivity import WEIGHT_BITS, Sensitivity

# Tensors that are planned for, of those that could be made narrow next; more while none helps.
_TRIED, _MOST_TRIED = 4, 16
_STALLED = 4  # steps in which the plan may stay as large
_SLOW = 3.0  # times the instructions of 8 bits, which weights take only if nothing else will do
_ROUNDS = 5  # of correcting what packed weights were thought to take
_STATES = 20_000  # of the knapsack

Bits = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Say what a network takes: bytes of arena, of constants, estimated instructions."""

    ram: int
    flash: int
    instructions: float


class Machine(Protocol):
    """Say what an integer network takes on a target."""

    def takes(self, graph: Graph) -> Footprint:
        """Return what it takes in the end."""

    def peak(self, graph: Graph) -> tuple[int, Mapping[str, float]]:
        """Return about the least RAM, and how many bytes of each tensor are in use at its peak."""

    def layers(self, graph: Graph) -> Mapping[str, tuple[int, float]]:
        """Return bytes of constants and estimated instructions by the name of a node's output."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Say how many bytes a network may take; None for any number."""

    ram: int | None = None
    flash: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Hold bits by node for weights of fewer than 8, and by tensor for narrow ones."""

    weights: Bits = field(default_factory=dict)
    narrow: Bits = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Option:
    """Give the bytes and the noise of one layer's weights at some bits.

    `slow`: whether the layer takes many more instructions than with weights of 8 bits.
    """

    position: int
    bits: int
    bytes: int
    noise: float
    slow: bool = False


def find(
    studied: Studied,
    sensitivity: Sensitivity,
    budget: Budget,
    machine: Machine,
    progress: Progress = quiet,
) -> tuple[Choice, Quantized, Footprint]:
    """Return bits that hold the budget, with the network and what it takes.

    Raises FitError with the least that was found when they cannot be held.
    """
    layers = layer_options(studied, sensitivity, machine)
    chosen, plain = Choice(), store(studied, {}, {})
    taken = machine.takes(plain.model)
    now = sum(options[0].bytes for options in layers)
    for done in range(_ROUNDS):
        progress(done, _ROUNDS)
        over = taken.flash - budget.flash if budget.flash is not None else 0
        if over > 0:
            fast = [[o for o in options if not o.slow] for options in layers]
            picked = pick(fast, now - over) or pick(layers, now - over)
            if picked is None:
                least = sum(min(o.bytes for o in options) for options in layers)
                raise FitError(
                    f"no choice of bits takes {budget.flash:,} bytes of flash or less",
                    f"the least found is {taken.flash - now + least:,} bytes of weights, biases "
                    "and tables",
                    "allow more, or choose a smaller model",
                )
            now = sum(o.bytes for o in picked)
            chosen = Choice({o.position: o.bits for o in picked if o.bits < 8}, chosen.narrow)
            plain = store(studied, chosen.weights, {})
        narrow = shrink(plain, sensitivity, budget.ram, machine, chosen.narrow)
        chosen = Choice(chosen.weights, narrow)
        found = store(studied, chosen.weights, narrow)
        taken = machine.takes(found.model)
        if budget.flash is None or taken.flash <= budget.flash:
            return chosen, found, taken
    raise FitError(
        f"no choice of bits was found that takes {budget.flash:,} bytes of flash",
        f"the last one takes {taken.flash:,}",
        "allow more, or choose a smaller model",
    )


def layer_options(
    studied: Studied, sensitivity: Sensitivity, machine: Machine
) -> list[list[Option]]:
    """Return what each layer's weights can be stored as, most bits first, as kernels take them.

    Layers that passes remove take nothing.
    """
    layers = sorted({position for position, _ in sensitivity.weights})
    tensors = studied.floats.tensors
    work = {
        bits: machine.layers(store(studied, dict.fromkeys(layers, bits), {}, False).model)
        for bits in WEIGHT_BITS
    }
    found = []
    for position in layers:
        name = tensors[studied.floats.nodes[position].outputs[0]].name
        usual = work[8].get(name, (0, 0.0))[1]
        options = []
        for bits in WEIGHT_BITS:
            size, instructions = work[bits].get(name, (0, 0.0))
            noise = sensitivity.weights[position, bits]
            options.append(Option(position, bits, size, noise, instructions > _SLOW * usual))
        found.append(options)
    return found


def pick(layers: Sequence[Sequence[Option]], room: int) -> list[Option] | None:
    """Return one option per layer, of least noise together, in at most `room` bytes.

    None if there is none. A front of bytes and noise grows layer by layer; beyond _STATES
    its states are thinned out evenly, so that long ones are close to the best, not the best.
    """
    sizes, noises = np.zeros(1, np.int64), np.zeros(1)
    steps = []
    for options in layers:
        size = (sizes[:, None] + np.array([o.bytes for o in options])).reshape(-1)
        noise = (noises[:, None] + np.array([o.noise for o in options])).reshape(-1)
        order = np.lexsort((noise, size))
        order = order[size[order] <= room]
        least = np.minimum.accumulate(noise[order])
        better = np.concatenate([[True], least[1:] < least[:-1]])[: len(order)]
        kept = order[better]
        if len(kept) == 0:
            return None
        if len(kept) > _STATES:
            kept = kept[np.linspace(0, len(kept) - 1, _STATES).astype(int)]
        sizes, noises = size[kept], noise[kept]
        steps.append(kept)
    state, found = len(sizes) - 1, []
    for options, kept in zip(reversed(layers), reversed(steps), strict=True):
        state, option = divmod(int(kept[state]), len(options))
        found.append(options[option])
    return found[::-1]


def shrink(
    plain: Quantized,
    sensitivity: Sensitivity,
    ram: int | None,
    machine: Machine,
    start: Bits,
) -> dict[int, int]:
    """Return bits of narrow tensors, `start` or more, whose plan takes at most so much RAM.

    In each step the tensors in use at the peak compete: those that cost least noise per byte are
    planned for, and the one that saves most RAM for its noise is made narrow. In the end, what
    turns out not to be needed is taken back. Raises FitError with the least found.
    """
    narrow = dict(start)
    if ram is None:
        return narrow

    def peak(bits: Bits) -> tuple[int, Mapping[str, float]]:
        return machine.peak(narrowed(plain.model, plain.statistics, bits))

    now, alive = peak(narrow)
    least, stalled = now, 0
    while now > ram and stalled < _STALLED:
        moves = _moves(plain.integers, sensitivity, narrow, alive)[:_MOST_TRIED]
        if not moves:
            break
        before = now
        tried: list[tuple[float, dict[int, int], int, Mapping[str, float]]] = []
        for noise, move in moves:
            if len(tried) >= _TRIED and min(t[2] for t in tried) < before:
                break
            tried.append((noise, move, *peak({**narrow, **move})))
        _, best, now, alive = max(tried, key=lambda t: (before - t[2]) / t[0])
        narrow.update(best)
        stalled = 0 if now < least else stalled + 1
        least = min(least, now)
    if now > ram:
        raise FitError(
            f"no choice of bits takes {ram:,} bytes of RAM or less",
            f"the least found is {least:,} bytes of activations",
            "with --input streamed the input need not lie in RAM as a whole",
        )
    for tensor in sorted(narrow, key=lambda t: -sensitivity.narrow[t, narrow[t]]):
        for fewer in _relaxed(narrow, tensor):
            if peak(fewer)[0] <= ram:
                narrow = fewer
                break
    return narrow


def _relaxed(narrow: dict[int, int], tensor: int) -> list[dict[int, int]]:
    """Return the choices with more bits for a tensor: 8 first, then twice as many."""
    without = {t: bits for t, bits in narrow.items() if t != tensor}
    return [without, *([{**without, tensor: 4}] if narrow[tensor] == 2 else [])]


def _moves(
    graph: Graph, sensitivity: Sensitivity, narrow: Bits, peak: Mapping[str, float]
) -> list[tuple[float, dict[int, int]]]:
    """Return (noise, tensor with its bits) of each next step, least noise per byte first."""
    found = []
    for tensor in {t for t, _ in sensitivity.narrow}:
        t = graph.tensors[tensor]
        held = sum(peak.get(t.name + suffix, 0.0) for suffix in ("", "_narrow", "_wide"))
        if not held:
            continue
        bits, before = 4, 0.0
        if tensor in narrow:
            bits, before = 2, sensitivity.narrow[tensor, narrow[tensor]]
        if narrow.get(tensor) != 2:
            noise = max(sensitivity.narrow[tensor, bits] - before, 1e-12)
            found.append((noise * bits / held, noise, {tensor: bits}))
    return [(noise, move) for _, noise, move in sorted(found, key=lambda f: f[0])]
