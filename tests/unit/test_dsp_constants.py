"""Prove that the constants of kernels for the DSP extension reproduce the arithmetic exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from tinydeploy.numerics.fixedpoint import requantize
from tinydeploy.ops._addsub import Params as AddParams
from tinydeploy.ops._dsp.add import addend_of, solve, table
from tinydeploy.ops._dsp.compact import compact_form
from tinydeploy.ops._dsp.requant import requant


def ssat8(x: np.ndarray) -> np.ndarray:
    return np.clip(x, -128, 127)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("zero", [-128, -3, 127])
def test_constants_of_requantisation_are_exact(single: bool, zero: int) -> None:
    """Compare the instruction sequences with the definition, above all where roundings tie."""
    r = default_rng(11)
    forms = set()
    for exponent in range(0, 23):
        # One channel whose sums reach +-4000000, far beyond most outputs.
        weights = np.full((1, 250), 127, np.int64)
        for _ in range(6):
            m = np.array([r.integers(2**30, 2**31)])
            shift = np.array([-exponent], np.int8)
            how = requant(weights[:, :125], np.array([5]), m, shift, zero, single)
            if how is None:
                assert exponent < 3 or exponent > 21
                continue
            forms.add((bool(how.uniform), bool(how.constant[0])))
            reach = 125 * 127 * 128
            a = r.integers(-reach, reach, 20000)
            # Sums that give results between two outputs, and their neighbours.
            ties = ((np.arange(-300, 300) * 2 + 1) << exponent) * 2**30 // int(m[0])
            ties = (ties[:, None] + np.arange(-3, 4)).ravel()
            a = np.concatenate([a, ties[np.abs(ties) < reach]])
            wanted = ssat8(requantize(a, m, shift, single=single) + zero)
            multiplier, addend = int(how.multiplier[0]), int(how.addend[0])
            if how.constant[0]:
                a = np.zeros_like(a)
            acc = a << int(how.scale_log2[0])
            assert np.abs(acc).max() < 2**31
            if how.uniform:
                got = ssat8((((acc * multiplier) >> 32) + addend) >> how.uniform)
            elif single:
                got = ssat8((((acc * multiplier) >> 32) + addend) >> int(how.right[0]))
            else:
                t = ((acc * multiplier + 2**31) >> 32) + addend
                if zero != -128:
                    t += acc >> 31
                got = ssat8(t >> int(how.right[0]))
            np.testing.assert_array_equal(got, wanted)
    assert (False, False) in forms
    assert (True, False) in forms or (zero != -128 and not single)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("zero", [-128, -3, 127])
def test_compact_constants_are_the_same(single: bool, zero: int) -> None:
    """Expand them as the kernels do; the last channel gives one value whatever the input."""
    r = default_rng(13)
    for exponent in range(3, 15):
        weights = np.concatenate([r.integers(-127, 128, (6, 40)), np.zeros((1, 40), np.int64)])
        bias = r.integers(-900, 900, 7)
        m, shift = r.integers(2**30, 2**31, 7), (r.integers(-1, 2, 7) - exponent).astype(np.int8)
        how = requant(weights, bias, m, shift, zero, single, wide=False)
        assert how is not None
        assert how.constant[6]
        c = compact_form(how, bias, zero, single)
        live = ~how.constant
        if how.uniform:
            addend, right = c.base + c.inner, np.full(7, how.uniform)
        else:
            addend, right = (c.base << c.low) >> 1, c.low
        np.testing.assert_array_equal(addend[live], how.addend[live])
        wanted = ssat8(requantize(bias[6:], m[6:], shift[6:], single=single) + zero)
        acc = int(c.bias[6]) << int(how.scale_log2[6])
        high = (acc * int(c.multiplier[6]) + (0 if how.uniform or single else 2**31)) >> 32
        high += 0 if how.uniform or single else acc >> 31
        assert (high + int(addend[6])) >> int(right[6]) == wanted[0]


def test_sums_are_proved_and_nothing_else_is_accepted() -> None:
    base = AddParams(
        1, 1, 1, 1, 1, 1, 3, 2**30, 0, -7, 1518500250, -1, -1, 5, 1200000000, -18, -128, 127
    )
    found = solve(base)
    assert found is not None
    x = np.arange(-128, 128)
    value = ((found.a * x) >> 8)[:, None] + ((found.b * x) >> 8)[None, :]
    np.testing.assert_array_equal(ssat8((value + found.addend) >> found.shift), table(base))
    broken = table(base).copy()
    broken[100, 100] += 2
    assert addend_of(broken, found.a, found.b, found.shift) is None
