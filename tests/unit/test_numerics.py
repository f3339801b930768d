"""Check the integer arithmetic against exact fractions, its C twin, and the math functions."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hostlib import STRICT, compile_c
from numpy.typing import NDArray

from tinydeploy import resources
from tinydeploy.errors import UsageError
from tinydeploy.numerics import fixedpoint as fp
from tinydeploy.numerics import gemmlowp
from tinydeploy.numerics.profile import PROFILES, profile_named

LOW, HIGH = -(2**31), 2**31 - 1
SHIFTS = range(-31, 6)
IntArray = NDArray[np.int64]


def wrapped(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def half_away(x: Fraction) -> int:
    """Round to nearest, halves away from zero."""
    return math.floor(x + Fraction(1, 2)) if x >= 0 else math.ceil(x - Fraction(1, 2))


def half_up(x: Fraction) -> int:
    """Round to nearest, halves towards plus infinity."""
    return math.floor(x + Fraction(1, 2))


def exact_high_mul(a: int, b: int) -> int:
    """The nudge of gemmlowp's product rounds halves up, whatever the sign."""
    return min(half_up(Fraction(a * b, 2**31)), HIGH)


def exact_double(x: int, multiplier: int, shift: int) -> int:
    """Requantise with two roundings: half up in the product, half away in the shift."""
    product = exact_high_mul(wrapped(x * 2 ** max(shift, 0)), multiplier)
    return half_away(Fraction(product, 2 ** max(-shift, 0)))


def exact_single(x: int, multiplier: int, shift: int) -> int:
    """Requantise with one rounding, half up, saturated."""
    return max(LOW, min(HIGH, half_up(Fraction(x * multiplier, 1) * Fraction(2) ** (shift - 31))))


def multipliers(random: np.random.Generator) -> list[int]:
    """Return Q0.31 multipliers, many with trailing zeros: those make exact ties possible."""
    odd = [int(random.integers(1 << 30, 1 << 31)) for _ in range(6)]
    round_ones = [int(random.integers(1 << k, 1 << (k + 1))) << (30 - k) for k in (0, 1, 4, 9, 15)]
    return [0, 1 << 30, HIGH, *odd, *round_ones]


def near_ties(multiplier: int, shift: int, random: np.random.Generator) -> list[int]:
    """Return accumulators whose scaled value lies at or next to k + 1/2, of both signs.

    The accumulator is solved for, not drawn: drawn ones hardly ever come near a tie.
    """
    found = []
    ratio = Fraction(2) ** (31 - shift) / multiplier if multiplier else Fraction(1)
    for k in [0, 1, 2, 3, 100, *(int(v) for v in random.integers(0, 1 << 20, 8))]:
        middle = (k + Fraction(1, 2)) * ratio
        for x in range(math.floor(middle) - 1, math.ceil(middle) + 2):
            found += [x, -x]
    return [x for x in found if LOW <= x * 2 ** max(shift, 0) <= HIGH]


@cache
def cases() -> tuple[IntArray, IntArray, IntArray]:
    """Return (accumulators, multipliers, shifts): ties, neighbours, extremes, random ones."""
    random = np.random.default_rng(0)
    rows = []
    for shift in SHIFTS:
        for multiplier in multipliers(random):
            values = near_ties(multiplier, shift, random)
            limit = HIGH >> max(shift, 0)
            values += [0, 1, -1, limit, -limit, *map(int, random.integers(-limit, limit, 6))]
            rows += [(x, multiplier, shift) for x in values]
    x, m, s = np.array(rows, np.int64).T
    return x, m, s


def test_requantize_double_is_the_exact_definition() -> None:
    x, m, s = cases()
    want = [exact_double(*row) for row in zip(x.tolist(), m.tolist(), s.tolist(), strict=True)]
    np.testing.assert_array_equal(fp.requantize(x, m, s, single=False), want)


def test_requantize_single_is_the_exact_definition() -> None:
    x, m, s = cases()
    want = [exact_single(*row) for row in zip(x.tolist(), m.tolist(), s.tolist(), strict=True)]
    np.testing.assert_array_equal(fp.requantize(x, m, s, single=True), want)


def test_ties_tell_the_roundings_apart() -> None:
    """Random accumulators hardly would: the point of solving for ties."""
    x, m, s = cases()
    differ = fp.requantize_double(x, m, s) != fp.requantize_single(x, m, s)
    assert differ.mean() > 0.02
    drawn = np.random.default_rng(1).integers(-(2**20), 2**20, 20_000)
    plain = fp.requantize_double(drawn, 1518500250, -9) != fp.requantize_single(
        drawn, 1518500250, -9
    )
    assert plain.mean() < 0.01
    for wrong in (half_toward_zero_double, truncated_double, half_away_single):
        want = fp.requantize_double(x, m, s)
        if wrong is half_away_single:
            want = fp.requantize_single(x, m, s)
        got = [wrong(*row) for row in zip(x.tolist(), m.tolist(), s.tolist(), strict=True)]
        assert np.any(want != got), wrong.__name__


def half_toward_zero_double(x: int, multiplier: int, shift: int) -> int:
    """Be wrong in the way a plain rounding shift is: halves up in the second rounding too."""
    product = exact_high_mul(wrapped(x * 2 ** max(shift, 0)), multiplier)
    return half_up(Fraction(product, 2 ** max(-shift, 0)))


def truncated_double(x: int, multiplier: int, shift: int) -> int:
    """Be wrong in the way a high multiplication without nudge is."""
    product = (wrapped(x * 2 ** max(shift, 0)) * multiplier) >> 31
    return half_away(Fraction(product, 2 ** max(-shift, 0)))


def half_away_single(x: int, multiplier: int, shift: int) -> int:
    exact = Fraction(x * multiplier, 1) * Fraction(2) ** (shift - 31)
    return max(LOW, min(HIGH, half_away(exact)))


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile templates/lib/td_fixedpoint.h with functions that work on arrays."""
    folder = tmp_path_factory.mktemp("twin")
    calls = {
        "high_mul": "td_high_mul(a[i], b[i])",
        "divide_by_pot": "td_divide_by_pot(a[i], b[i])",
        "shift_left": "td_shift_left(a[i], b[i])",
        "requantize": "td_requantize(a[i], b[i], c[i])",
        "requantize_once": "td_requantize_once(a[i], b[i], c[i])",
        "clamp": "td_clamp(a[i], b[i], c[i])",
        "offset_clamp": "td_offset_clamp(a[i], b[i], c[i], 127)",
    }
    arguments = "const int32_t *a, const int32_t *b, const int32_t *c, int32_t *to, int32_t n"
    source = ['#include "td_fixedpoint.h"']
    for name, call in calls.items():
        body = f"(void)c; for (int32_t i = 0; i < n; i++) {{ to[i] = {call}; }}"
        source.append(f"void {name}({arguments});\nvoid {name}({arguments}) {{ {body} }}")
    (folder / "twin.c").write_text("\n".join(source) + "\n")
    include = f"-I{resources.folder('templates') / 'lib'}"
    flags = ["-O2", "-shared", "-fPIC", include, *STRICT]
    compile_c([folder / "twin.c"], folder / "twin.so", flags)
    return ctypes.CDLL(str(folder / "twin.so"))


def in_c(twin: Any, name: str, a: Any, b: Any, c: Any = 0) -> NDArray[np.int32]:
    a, b, c = (np.ascontiguousarray(v, np.int32) for v in np.broadcast_arrays(a, b, c))
    out = np.empty(a.shape, np.int32)
    twin[name](*(ctypes.c_void_p(v.ctypes.data) for v in (a, b, c, out)), ctypes.c_int32(a.size))
    return out


def extremes() -> IntArray:
    random = np.random.default_rng(2)
    around = [c + d for c in (LOW, -(2**30), -256, 0, 255, 2**30, HIGH) for d in range(-3, 4)]
    drawn = random.integers(LOW, HIGH, 40).tolist()
    return np.array([v for v in [*around, *drawn] if LOW <= v <= HIGH], np.int64)


def test_c_requantize_is_the_reference(twin: Any) -> None:
    x, m, s = cases()
    np.testing.assert_array_equal(in_c(twin, "requantize", x, m, s), fp.requantize_double(x, m, s))
    np.testing.assert_array_equal(
        in_c(twin, "requantize_once", x, m, s), fp.requantize_single(x, m, s)
    )


def test_c_requantize_of_any_accumulator_is_the_reference(twin: Any) -> None:
    """Left shifts wrap alike, and negative multipliers (subtraction) round alike."""
    x = np.repeat(extremes(), len(SHIFTS))
    s = np.tile(np.array(SHIFTS), len(extremes()))
    for m in (1 << 30, -(1 << 30), HIGH, -HIGH, 1518500250, -1518500250, (1 << 30) + 512):
        np.testing.assert_array_equal(
            in_c(twin, "requantize", x, m, s), fp.requantize_double(x, m, s)
        )
    for m in (1 << 30, HIGH, 1518500250):
        np.testing.assert_array_equal(
            in_c(twin, "requantize_once", x, m, s), fp.requantize_single(x, m, s)
        )


def test_high_mul_is_exact_and_saturates(twin: Any) -> None:
    values = extremes()
    a, b = np.repeat(values, len(values)), np.tile(values, len(values))
    want = [exact_high_mul(*pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_array_equal(fp.saturating_rounding_doubling_high_mul(a, b), want)
    np.testing.assert_array_equal(in_c(twin, "high_mul", a, b), want)
    assert in_c(twin, "high_mul", [LOW], [LOW])[0] == HIGH


def test_division_by_powers_of_two_rounds_halves_away(twin: Any) -> None:
    for exponent in range(32):
        half = 1 << exponent >> 1
        x = extremes()
        ties = [k * 2 * half + half + d for k in (-3, -2, -1, 0, 1, 2) for d in (-1, 0, 1)]
        x = np.array([*x.tolist(), *(t for t in ties if LOW <= t <= HIGH)], np.int64)
        want = [half_away(Fraction(v, 2**exponent)) for v in x.tolist()]
        np.testing.assert_array_equal(fp.rounding_divide_by_power_of_two(x, exponent), want)
        np.testing.assert_array_equal(in_c(twin, "divide_by_pot", x, exponent), want)


def test_small_c_helpers(twin: Any) -> None:
    values = extremes()
    for amount in range(31):
        np.testing.assert_array_equal(
            in_c(twin, "shift_left", values, amount), fp.wrap32(values << amount)
        )
    np.testing.assert_array_equal(in_c(twin, "clamp", values, -128, 127), values.clip(-128, 127))
    for offset in (-128, 0, 127):
        want = (values + offset).clip(-5, 127)
        np.testing.assert_array_equal(in_c(twin, "offset_clamp", values, offset, -5), want)
    np.testing.assert_array_equal(fp.wrap32(np.array([2**31, -(2**31) - 1])), [LOW, HIGH])


def reals() -> Iterator[float]:
    random = np.random.default_rng(3)
    for exponent in range(-31, 30):
        yield 2.0**exponent
        yield 2.0**exponent * (1 + 2.0**-31)
        yield 2.0**exponent * (1 - 2.0**-33)  # rounds up to the next power of two
        yield 2.0 ** (exponent + random.random())


def test_quantize_multiplier_is_the_nearest_one() -> None:
    for real in reals():
        multiplier, shift = fp.quantize_multiplier(real)
        assert 1 << 30 <= multiplier <= HIGH and -31 <= shift <= 30
        error = abs(Fraction(multiplier) * Fraction(2) ** (shift - 31) - Fraction(real))
        assert error <= Fraction(2) ** (shift - 32)


def test_quantize_multiplier_at_its_ends() -> None:
    assert fp.quantize_multiplier(0.0) == (0, 0)
    assert fp.quantize_multiplier(1.0) == (1 << 30, 1)
    assert fp.quantize_multiplier(0.5) == (1 << 30, 0)
    assert fp.quantize_multiplier(2.0**-40) == (0, 0)
    for wrong in (-1.0, math.inf, math.nan, 2.0**30, 2.0**40):
        with pytest.raises(ValueError, match="multiplier"):
            fp.quantize_multiplier(wrong)


def test_quantize_float_rounds_halves_away_and_clamps() -> None:
    x = np.array([0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997, -0.49999997, 126.5, 127.5, -128.5, 1e30])
    want = [1, -1, 2, -2, 3, 0, 0, 127, 127, -128, 127]
    np.testing.assert_array_equal(fp.quantize_float(x, 1.0, 0, "int8"), want)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, np.float32(3.4e38), 1e-45], np.float32)
    np.testing.assert_array_equal(fp.quantize_float(odd, 0.1, 5, "int8"), [5, 127, -128, 5, 127, 5])
    assert fp.quantize_float(np.array(1e30), 1e-30, 0, "int8") == 127


def test_quantize_undoes_dequantize() -> None:
    stored = np.arange(-128, 128).astype(np.int8)
    for scale in (1e-6, 0.1, 1 / 256, 3.7, 1e5):
        for zero_point in (-128, -5, 0, 127):
            real = fp.dequantize(stored, scale, zero_point)
            assert real.dtype == np.float32
            np.testing.assert_array_equal(
                fp.quantize_float(real, scale, zero_point, "int8"), stored
            )


def test_exp_is_close_to_exp() -> None:
    for bits in range(6):
        raw = np.linspace(-(2**31), 0, 4001).astype(np.int64)
        got = gemmlowp.exp_on_negative_values(raw, bits) / 2.0**31
        np.testing.assert_allclose(got, np.exp(raw / 2.0 ** (31 - bits)), atol=2e-7)
    assert gemmlowp.exp_on_negative_values(np.array([0]), 5)[0] == HIGH


def test_reciprocal_is_close_to_the_reciprocal() -> None:
    raw = np.linspace(0, HIGH, 4001).astype(np.int64)
    got = gemmlowp.one_over_one_plus_x(raw) / 2.0**31
    np.testing.assert_allclose(got, 1 / (1 + raw / 2.0**31), atol=4e-9)


def test_logistic_is_close_to_the_logistic_function() -> None:
    raw = np.linspace(LOW, HIGH, 4001).astype(np.int64)
    got = gemmlowp.logistic(raw, 4) / 2.0**31
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-raw / 2.0**27)), atol=2e-7)


def test_tanh_is_close_to_the_hyperbolic_tangent() -> None:
    raw = np.linspace(LOW, HIGH, 4001).astype(np.int64)
    got = gemmlowp.tanh(raw, 4) / 2.0**31
    np.testing.assert_allclose(got, np.tanh(raw / 2.0**27), atol=4e-7)


def test_int8_logistic_and_softmax_are_close_to_the_functions() -> None:
    stored = np.arange(-128, 128)
    for scale, zero_point in ((0.05, 0), (0.01, -128), (1.7, 127), (7.9, 3), (1e-6, 5)):
        real = 1 / (1 + np.exp(np.minimum(-scale * (stored - zero_point), 700)))
        got = gemmlowp.logistic_int8(stored, scale, zero_point)
        assert np.abs(got - (256 * real - 128).clip(-128, 127)).max() <= 1.0
    random = np.random.default_rng(4)
    for depth in (1, 2, 10, 300):
        for scale in (0.001, 0.1, 2.0, 40.0):
            scores = random.integers(-128, 128, (5, depth))
            power = np.exp(scale * (scores - scores.max(axis=-1, keepdims=True)))
            real = 256 * power / power.sum(axis=-1, keepdims=True) - 128
            got = gemmlowp.softmax_row(scores, gemmlowp.softmax_exponentials(scale, 1.0))
            assert np.abs(got - real.clip(-128, 127)).max() <= 1.0


def test_profiles_have_names() -> None:
    assert all(profile_named(name) is profile for name, profile in PROFILES.items())
    with pytest.raises(UsageError):
        profile_named("nobody")
