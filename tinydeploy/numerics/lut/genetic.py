"""Search breakpoints as GQA-LUT (2024) does: a genetic algorithm with rounding mutation.

Population, generations, crossover, mutation and tournament are the published ones. How parents
replace each other (all by their offspring, the best one kept beside) and how lines are fitted
(least squares on the grid) are this project's reading.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinydeploy.numerics.lut.functions import Floats
from tinydeploy.numerics.lut.piecewise import GRID, Indices, Piecewise, Samples, fit, table_of

POPULATION, GENERATIONS = 50, 500
CROSSOVER, MUTATION, TOURNAMENT = 0.7, 0.2, 3
_ROUNDING_STEP, _NOISE_FROM, _NOISE = 0.05, 0.9, 0.2


def _edges(samples: Samples, population: Floats) -> Indices:
    """Return the indices of points where segments begin, [individuals, segments + 1]."""
    inner = np.searchsorted(samples.x, np.sort(population, axis=1) - 1e-9)
    ends = np.zeros((len(population), 1), np.int64)
    return np.concatenate([ends, inner, ends + len(samples.x)], axis=1)


def _fitness(samples: Samples, population: Floats, step: float) -> Floats:
    """Return the mean squared error of each individual."""
    edges = _edges(samples, population)
    total: Floats = fit(samples, edges[:, :-1], edges[:, 1:], step)[2].sum(axis=1)
    return total / len(samples.x)


def _crossed(random: np.random.Generator, population: Floats) -> Floats:
    """Exchange the genes between two places among pairs of neighbours, with probability 0.7."""
    count, genes = population.shape
    result = population.copy()
    for k in range(0, count - 1, 2):
        if random.random() < CROSSOVER:
            first, last = np.sort(random.choice(genes + 1, 2, replace=False))
            result[[k, k + 1], first:last] = population[[k + 1, k], first:last]
    return result


def _mutated(random: np.random.Generator, population: Floats, low: float, high: float) -> Floats:
    """Round genes to 2^-j for p in [0.05 j, 0.05 (j + 1)), j = 0 .. 6; shift them for p >= 0.9."""
    chosen = random.random(len(population)) < MUTATION
    p = random.random(population.shape)
    j = np.floor(p / _ROUNDING_STEP)
    rounded = np.round(population * 2.0**j) / 2.0**j
    noisy = population + random.normal(0, _NOISE, population.shape)
    result = np.where(j <= 6, rounded, np.where(p >= _NOISE_FROM, noisy, population))
    return np.clip(np.where(chosen[:, None], result, population), low, high)


def search(
    samples: Samples,
    segments: int,
    seed: int = 0,
    generations: int = GENERATIONS,
    step: float = GRID,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Piecewise:
    """Return the best table found; the same seed finds the same one."""
    random = np.random.default_rng(seed)
    low, high = float(samples.x[0]), float(samples.x[-1])
    population = random.uniform(low, high, (POPULATION, segments - 1))
    fitness = _fitness(samples, population, step)
    best, least = population[fitness.argmin()].copy(), float(fitness.min())
    for generation in range(generations):
        rivals = random.integers(0, POPULATION, (POPULATION, TOURNAMENT))
        winners = rivals[np.arange(POPULATION), fitness[rivals].argmin(axis=1)]
        population = _mutated(random, _crossed(random, population[winners]), low, high)
        fitness = _fitness(samples, population, step)
        if fitness.min() < least:
            best, least = population[fitness.argmin()].copy(), float(fitness.min())
        progress(generation + 1, generations)
    edges = _edges(samples, best[None])[0]
    return table_of(samples, edges, step)
