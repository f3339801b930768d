"""Piecewise-linear tables: published errors, optimality, and integers that C evaluates alike."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builder import Builder
from hostlib import STRICT, compile_c

from tinydeploy.codegen.lut import c_source, intel_hex, words
from tinydeploy.numerics import interpolation
from tinydeploy.numerics.lut import genetic, integer, piecewise
from tinydeploy.numerics.lut.functions import FUNCTIONS
from tinydeploy.numerics.lut.piecewise import Samples, grid
from tinydeploy.verify.litert import LiteRt

# Mean squared errors of GQA-LUT's released parameters, 8 and 16 segments, on a grid of 0.01.
PUBLISHED = {
    "gelu": (7.2e-5, 1.6e-5),
    "hswish": (3.3e-4, 1.9e-5),
    "exp": (1.9e-5, 2.2e-5),
    "div": (4.1e-5, 2.1e-5),
    "rsqrt": (3.7e-5, 1.1e-5),
}
CASES = [(name, k) for name in PUBLISHED for k in (0, 1)]


def samples(name: str, step: float = 0.01) -> Samples:
    return Samples.of(FUNCTIONS[name], grid(FUNCTIONS[name], step))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_dynamic_program_beats_the_published_search(name: str, size: int) -> None:
    fine = samples(name)
    table = piecewise.optimal(fine, 8 << size)
    assert len(table.slopes) == 8 << size and len(table.breakpoints) == (8 << size) - 1
    assert (table.slopes / piecewise.GRID % 1 == 0).all()
    assert (table.intercepts / piecewise.GRID % 1 == 0).all()
    assert fine.error(table) < PUBLISHED[name][size]
    assert fine.error(table) <= fine.error(piecewise.uniform(fine, 8 << size))


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(*c, marks=[] if c == ("gelu", 0) else [pytest.mark.slow]) for c in CASES],
)
def test_the_genetic_search_reaches_what_was_published(name: str, size: int) -> None:
    fine = samples(name)
    found = genetic.search(fine, 8 << size, seed=1)
    assert fine.error(piecewise.optimal(fine, 8 << size)) <= fine.error(found) * (1 + 1e-9)
    assert fine.error(found) <= PUBLISHED[name][size]


def test_the_genetic_search_repeats_itself_and_improves() -> None:
    fine = samples("exp")
    tables = [genetic.search(fine, 8, 5, n) for n in (0, 40, 40)]
    np.testing.assert_array_equal(tables[1].breakpoints, tables[2].breakpoints)
    assert fine.error(tables[1]) < fine.error(tables[0])


def test_the_dynamic_program_finds_the_best_of_all_tables() -> None:
    coarse = samples("gelu", 0.5)
    found = coarse.error(piecewise.optimal(coarse, 3))
    count = len(coarse.x)
    every = [
        coarse.error(piecewise.table_of(coarse, np.array([0, i, j, count])))
        for i, j in itertools.combinations(range(1, count), 2)
    ]
    assert found == pytest.approx(min(every))


def test_powers_of_two_extend_the_range() -> None:
    x = np.geomspace(2.0**-9, 2.0**9, 2000)
    for name in ("div", "rsqrt"):
        function = FUNCTIONS[name]
        table = piecewise.optimal(samples(name), 16)
        relative = integer.scaled_by_powers(table, function, x) / function.of(x) - 1
        assert np.abs(relative).max() < 0.02


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("header", [False, True])
def test_the_c_computes_what_numpy_does(bits: int, header: bool, tmp_path: Path) -> None:
    for name in ("gelu", "rsqrt"):
        function = FUNCTIONS[name]
        scales = integer.scales(function, bits)
        table = integer.integers(piecewise.optimal(samples(name), 16), *scales, bits)
        limit = 1 << (bits - 1)
        x = np.arange(-limit, limit)
        source = tmp_path / f"{name}.c"
        source.write_text(c_source(function, table, header=header))
        call = f"int call(int x);\nint call(int x) {{ return td_lut_{name}((int{bits}_t)x); }}\n"
        source.write_text(source.read_text() + call)
        for compiler in ("gcc", "clang"):
            library = tmp_path / f"{name}_{compiler}.so"
            compile_c([source], library, ["-O1", "-shared", "-fPIC", *STRICT], compiler)
            run = ctypes.CDLL(str(library)).call
            np.testing.assert_array_equal([run(int(v)) for v in x[:: 1 + bits // 9 * 6]],
                                          table(x[:: 1 + bits // 9 * 6]))  # fmt: skip
        real = x * scales[0]
        inside = (real >= function.low) & (real <= function.high)
        error = table(x)[inside] * scales[1] - function.of(real[inside])
        assert np.abs(error).max() < 0.03 + scales[1]


def test_tables_too_steep_for_their_integers_are_refused() -> None:
    table = piecewise.optimal(samples("exp"), 8)
    with pytest.raises(ValueError, match="steps per step"):
        integer.integers(replace(table, slopes=table.slopes + 1e6), 1.0, 1.0, 16)


def test_words_for_hardware() -> None:
    table = integer.integers(
        piecewise.optimal(samples("gelu"), 8), *integer.scales(FUNCTIONS["gelu"], 8), 8
    )
    data = words(table)
    assert len(data) == 4 + 8 * 8
    read = b""
    lines = intel_hex(data).splitlines()
    for line in lines[:-1]:
        record = bytes.fromhex(line[1:])
        assert sum(record) % 256 == 0 and int.from_bytes(record[1:3]) == len(read)
        read += record[4:-1]
    assert read == data and lines[-1] == ":00000001FF"
    np.testing.assert_array_equal(np.frombuffer(data[20:36], "<i2"), table.slopes)
    np.testing.assert_array_equal(np.frombuffer(data[36:], "<i4"), table.intercepts)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "sin"])
def test_interpolation_of_513_entries(name: str) -> None:
    function = FUNCTIONS[name]
    scale = integer.power_of_two_scale(8.0, 16)
    table = interpolation.table_of(function.of, scale, 0, 2.0**-15, np.float32)
    x = np.arange(-32768, 32768)
    exact = np.clip(function.of(x * scale) / 2.0**-15, -32768, 32767)
    # 4 of the curvature and 8 of the step, which is 1/65536 short of 128 inputs.
    assert np.abs(interpolation.interpolated(table, x) - exact).max() < 10


@pytest.mark.parametrize(("op", "scale"), [("EXP", 1e-4), ("EXP", 2.0**-13), ("GELU", 2.7e-4)])
def test_interpolation_is_that_of_litert(op: str, scale: float) -> None:
    x = np.arange(-32768, 32768)
    b = Builder()
    inp = b.tensor((1, 65536), "int16", scale, 0)
    out = b.tensor((1, 65536), "int16", 7 * scale, 0)
    b.operator(op, [inp], out)
    wanted = LiteRt(b.build([inp], [out])).run([x.astype(np.int16)[None]])[0][0]
    table = interpolation.table_of(FUNCTIONS[op.lower()].of, scale, 0, 7 * scale, np.float32)
    np.testing.assert_array_equal(interpolation.interpolated(table, x), wanted)
