"""Check bits per tensor: levels, packing, what a change costs, budgets, the comparison."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import float_network
from numpy.typing import NDArray

from tinydeploy.cli.main import cli
from tinydeploy.errors import FitError, ModelError, UsageError
from tinydeploy.export import tflite
from tinydeploy.footprint import Machine
from tinydeploy.importers import read_model, tdm
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops._weights import storage_bytes, weight_bits
from tinydeploy.ops.execute import run_all, run_floats, run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.plan.search import Wanted
from tinydeploy.plan.select import Core
from tinydeploy.quantize.measure import decibels, to_integers, to_real
from tinydeploy.quantize.mixed import Budget, Choice, Footprint, Option, find, pick
from tinydeploy.quantize.narrow import best_levels, can_narrow
from tinydeploy.quantize.quantize import Settings, Studied, quantize, store, study
from tinydeploy.quantize.quantmcu import Settings as Constants
from tinydeploy.quantize.quantmcu import quantmcu
from tinydeploy.quantize.restore import to_float
from tinydeploy.quantize.sensitivity import Replay, Sensitivity, measure_sensitivity

Array = NDArray[Any]
LITERT = PROFILES["litert"]
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_float.tflite"
DIGITS_TEST = ROOT / "examples" / "digits" / "digits_test.npz"
MACHINE = Machine(LITERT, Core(), Wanted(), "greedy")


def digits(count: int) -> list[list[Array]]:
    return [[image[None]] for image in np.load(DIGITS_TEST)["float0"][:count]]


@pytest.fixture(scope="module")
def studied() -> Studied:
    return study(read_model(DIGITS), digits(4), Settings(rounding="nearest", correct_bias=False))


@pytest.fixture(scope="module")
def sensitivity(studied: Studied) -> Sensitivity:
    return measure_sensitivity(studied)


@pytest.mark.parametrize("seed", range(3))
def test_levels_are_the_best_of_all(seed: int) -> None:
    """No other choice of three levels among the values that occur errs less."""
    random = np.random.default_rng(seed)
    mass = np.zeros(256)
    places = np.sort(random.choice(256, 9, replace=False))
    mass[places] = random.integers(1, 50, 9)
    values = np.arange(-128, 128)

    def error(levels: Any) -> float:
        return float((mass * ((values[:, None] - np.array(levels)) ** 2).min(axis=1)).sum())

    found = best_levels(mass, 3)
    tried = itertools.combinations(range(values[places[0]], values[places[-1]] + 1, 7), 3)
    assert error(found) <= min(map(error, tried)) + 1e-6 * mass.sum()
    for count in (4, 16):
        levels = best_levels(mass, count)
        assert len(levels) == count and (np.diff(levels) > 0).all()
        assert levels.min() >= -128 and levels.max() <= 127


def test_narrow_tensors_hold_their_levels_and_survive_passes_and_files(studied: Studied) -> None:
    tensors = can_narrow(studied.floats)
    bits = {t: (4, 2)[k % 2] for k, t in enumerate(tensors)}
    q = store(studied, {}, bits)
    again = run_passes(tdm.read_bytes(q.archive()), LITERT)
    assert [n.op for n in again.nodes].count("NARROW") == len(bits)
    sample = to_integers(q.integers, digits(1)[0])
    values = run_all(q.integers, sample, LITERT)
    for node in q.integers.nodes:
        if node.op == "WIDEN":
            packed, wide = q.integers.tensors[node.inputs[0] or 0], values[node.outputs[0]]
            assert len(np.unique(wide)) <= len(node.attributes.levels)
            assert packed.bytes <= -(-wide.size * 4 // 8) + packed.rows
    np.testing.assert_array_equal(
        values[q.integers.outputs[0]], run_outputs(again, sample, LITERT)[0]
    )
    with pytest.raises(ModelError, match=r"cannot be stored in a \.tflite"):
        tflite.to_bytes(q.model)


def test_noise_is_that_of_one_change(studied: Studied) -> None:
    """A tensor replaced by twice itself disturbs the outputs as the network run so does."""
    replay = Replay(studied.floats, studied.samples)
    node = studied.floats.nodes[3]
    weights = node.inputs[1] or 0
    data = studied.floats.tensors[weights].data
    assert data is not None
    assert replay.noise(weights, [data] * 4) == 0
    tensors = list(studied.floats.tensors)
    tensors[weights] = replace(tensors[weights], data=data * np.float32(1.5))
    other = studied.floats.replace(tensors=tuple(tensors))
    (watched,) = replay.watched
    pairs = [
        (run_floats(other, s)[watched], run_floats(studied.floats, s)[watched])
        for s in studied.samples
    ]
    noise = sum(float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in pairs)
    power = sum(float((b.astype(np.float64) ** 2).sum()) for _, b in pairs)
    found = replay.noise(weights, [data * np.float32(1.5)] * 4)
    assert found == pytest.approx(noise / power, rel=1e-6)


def test_fewer_bits_disturb_more(sensitivity: Sensitivity) -> None:
    layers = {p for p, _ in sensitivity.weights}
    w = sensitivity.weights
    assert sum(w[p, 8] < w[p, 4] < w[p, 2] for p in layers) >= len(layers) - 1
    assert all(sensitivity.narrow[t, 4] < sensitivity.narrow[t, 2] for t, _ in sensitivity.narrow)


def test_the_knapsack_is_the_best_of_all() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        layers = [
            [Option(p, b, int(random.integers(1, 50)), float(random.uniform())) for b in (8, 4, 2)]
            for p in range(6)
        ]
        every = list(itertools.product(*layers))
        room = int(random.integers(40, 200))
        fitting = [c for c in every if sum(o.bytes for o in c) <= room]
        found = pick(layers, room)
        if not fitting:
            assert found is None
            continue
        assert found is not None and sum(o.bytes for o in found) <= room
        least = min(sum(o.noise for o in c) for c in fitting)
        assert sum(o.noise for o in found) == pytest.approx(least)


class Simple:
    """Count the largest tensor as RAM: every choice is known beforehand."""

    def takes(self, graph: Graph) -> Footprint:
        return Footprint(self.peak(graph)[0], sum(self._bytes(graph).values()), 0.0)

    def peak(self, graph: Graph) -> tuple[int, dict[str, float]]:
        wide = [graph.tensors[n.inputs[0] or 0] for n in graph.nodes if n.op == "NARROW"]
        made = [graph.tensors[o] for n in graph.nodes for o in n.outputs if n.op != "WIDEN"]
        sizes = {t.name: t.bytes for t in made if all(t is not w for w in wide)}
        largest = max(sizes.values())
        return largest, {name: size for name, size in sizes.items() if size == largest}

    def layers(self, graph: Graph) -> dict[str, tuple[int, float]]:
        return {name: (size, 1.0) for name, size in self._bytes(graph).items()}

    def _bytes(self, graph: Graph) -> dict[str, int]:
        found = {}
        for n in graph.nodes:
            weights = graph.tensors[n.inputs[1] or 0].data if len(n.inputs) > 1 else None
            if weights is not None:
                bits = weight_bits(weights)
                found[graph.tensors[n.outputs[0]].name] = storage_bytes(weights.size, bits)
        return found


def test_budgets_hold(studied: Studied, sensitivity: Sensitivity) -> None:
    base = Simple().takes(store(studied, {}, {}).model)
    budget = Budget(base.ram // 2, int(0.6 * base.flash))
    choice, quantized, taken = find(studied, sensitivity, budget, Simple())
    assert taken == Simple().takes(quantized.model)
    assert budget.ram is not None and taken.ram <= budget.ram
    assert budget.flash is not None and taken.flash <= budget.flash
    large = {i for i in can_narrow(studied.floats)
             if studied.floats.tensors[i].elements > budget.ram}  # fmt: skip
    assert set(choice.narrow) == large and set(choice.narrow.values()) == {4}
    assert find(studied, sensitivity, Budget(), Simple())[0] == Choice()
    with pytest.raises(FitError, match="RAM"):
        find(studied, sensitivity, Budget(ram=100), Simple())


def test_rows_held_for_long_count_at_the_peak(studied: Studied) -> None:
    """A plan in rows is largest where a sum waits for the other branch, in rows or whole."""
    least, held = MACHINE.peak(store(studied, {}, {}).model)
    assert held["functional_1/add_1/Add"] >= 14 * 16
    assert 0.9 * least <= sum(held.values()) <= 1.5 * least  # what takes a place over counts twice


@pytest.mark.slow
def test_budgets_hold_with_real_plans(studied: Studied, sensitivity: Sensitivity) -> None:
    base = MACHINE.takes(store(studied, {}, {}).model)
    budget = Budget(int(0.95 * base.ram), int(0.75 * base.flash))
    choice, quantized, taken = find(studied, sensitivity, budget, MACHINE)
    assert budget.ram is not None and budget.flash is not None
    assert taken.ram <= budget.ram and taken.flash <= budget.flash
    assert choice.weights and choice.narrow
    assert MACHINE.takes(quantized.model) == taken


def test_what_cannot_be_held_is_refused(studied: Studied, sensitivity: Sensitivity) -> None:
    with pytest.raises(FitError, match="flash") as refused:
        find(studied, sensitivity, Budget(flash=100), Simple())
    assert "least found" in refused.value.why


def test_an_integer_model_comes_back_as_float() -> None:
    """Requantised at 8 bits it says what it said; the float network is the one it was made from."""
    floats = read_bytes(float_network(), "net")
    shape = floats.tensors[floats.inputs[0]].shape
    random = np.random.default_rng(0)
    samples = [[random.normal(size=shape).astype(np.float32)] for _ in range(8)]
    q = quantize(floats, samples)
    restored = to_float(q.model)
    signal = noise = 0.0
    for sample in samples:
        exact = run_floats(restored, sample)[restored.outputs[0]]
        stored = run_outputs(q.model, to_integers(q.model, sample), LITERT)[0]
        real = to_real(q.model, q.model.outputs[0], stored)
        signal, noise = signal + (exact**2).sum(), noise + ((exact - real) ** 2).sum()
    assert decibels(signal, noise) > 25
    assert all(t.quantization is None for t in restored.tensors if t.dtype.value == "float32")


def test_quantmcu_gives_way_under_its_limit(studied: Studied) -> None:
    free = quantmcu(studied, None, Constants(grid=2))
    assert free is not None
    tight = quantmcu(studied, int(0.9 * free.memory), Constants(grid=2))
    assert tight is not None and tight.end == free.end
    assert tight.memory < free.memory and min(tight.bits.values()) < 8
    assert tight.narrow_sqnr < free.narrow_sqnr
    assert tight.bit_ops <= free.bit_ops <= free.plain_bit_ops


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "m.tdm"
    options = ["--data", DIGITS_TEST, "--samples", 8, "--rounding", "nearest", "--no-correct-bias"]
    command = ["quantize", DIGITS, *options, "--target", "host", "--flash", "14K", "--compare"]
    assert cli.main([*map(str, command), "-o", str(out), "--json"], standalone_mode=False) == 0
    mixed = json.loads(capsys.readouterr().out)["mixed"]
    (chosen,) = mixed["front"]
    assert chosen["chosen"] and chosen["const_bytes"] <= 14 * 1024 and chosen["weights"]
    assert MACHINE.takes(tdm.read_file(out)).flash == chosen["const_bytes"]
    assert mixed["quantmcu"]["memory_bytes"] > 0
    for wrong in (["--flash", "14K"], ["--target", "host", "--flash", "14K", "--weights", "4"]):
        with pytest.raises(UsageError):
            cli.main([*map(str, ["quantize", DIGITS, *options, *wrong])], standalone_mode=False)
