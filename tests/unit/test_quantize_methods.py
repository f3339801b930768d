"""SQuant: sums of rounding errors, neighbours only, and the optimum found by trying everything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.random import default_rng

from tinydeploy.quantize.squant import flip_kernels, squant

SHAPES = [((6, 3, 3, 5), 0), ((1, 3, 3, 7), 3), ((4, 33), 0), ((9, 1, 1, 20), 0), ((2, 1), 0)]


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("largest", [1, 7, 127])
def test_errors_cancel_and_elements_move_to_neighbours(
    shape: tuple[int, ...], axis: int, largest: int
) -> None:
    scaled = default_rng(largest).uniform(-1.1 * largest, 1.1 * largest, shape).astype(np.float32)
    values = squant(scaled, axis, largest)
    inside = np.clip(scaled.astype(np.float64), -largest, largest)
    errors = values - inside
    assert values.shape == shape and np.abs(values).max() <= largest
    assert ((values == np.floor(inside)) | (values == np.ceil(inside))).all()
    channels = tuple(k for k in range(len(shape)) if k != axis)
    assert np.abs(errors.sum(axis=channels)).max() <= 0.5 + 1e-9
    if len(shape) == 4:
        assert np.abs(errors.sum(axis=(1, 2))).max() <= 1 + 1e-9
    nearest = np.rint(inside) - inside
    assert np.abs(nearest.sum(axis=channels)).max() > 0.5 or shape == (2, 1)


def test_kernels_alone_end_within_half() -> None:
    wanted = default_rng(0).uniform(-7, 7, (20, 5, 9))
    rounded = np.rint(wanted)
    flip_kernels(rounded, wanted)
    assert np.abs((rounded - wanted).sum(axis=-1)).max() <= 0.5 + 1e-9


def best_by_trying(wanted: np.ndarray) -> tuple[float, float]:
    """Return the least |sum of errors| over all neighbours, and the least sum of squares there."""
    found = []
    for ups in itertools.product((0, 1), repeat=len(wanted)):
        errors = np.floor(wanted) + ups - wanted
        found.append((round(abs(errors.sum()), 9), (errors**2).sum()))
    return min(found)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(1, 6), (1, 3, 2, 1), (1, 1, 1, 6)])
def test_one_kernel_or_row_is_the_optimum(shape: tuple[int, ...], seed: int) -> None:
    scaled = default_rng(seed).uniform(-7, 7, shape).astype(np.float32)
    errors = squant(scaled, 0, 7).astype(np.float64) - scaled
    least, squares = best_by_trying(scaled.reshape(-1).astype(np.float64))
    assert abs(errors.sum()) == pytest.approx(least, abs=1e-6)
    assert (errors**2).sum() == pytest.approx(squares, abs=1e-6)
