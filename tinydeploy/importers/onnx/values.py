"""Say where the elements of an ONNX value lie in a stored tensor, so that moving axes is free.

A stored tensor's memory is a row of `atoms`, axes of more than one element. Each axis of the ONNX
value is a product of some of them. Transpose, Reshape, Flatten, Squeeze and Unsqueeze only regroup
atoms; an operator that needs another order in memory asks the builder for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# For each axis of a stored tensor the axis of the value, None for one of size 1 that is added.
Order = tuple[int | None, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Hold the integers a constant was dequantised from; scales along `axis` or one for all."""

    integers: Array
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Hold a value that does not depend on the inputs."""

    array: Array
    stored: Stored | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """Hold a value computed at run time.

    index: the tensor of the Graph that stores it.
    sizes: of the atoms, in the order of memory.
    axes: the atoms of each axis of the ONNX value, outermost first.
    """

    index: int
    sizes: tuple[int, ...]
    axes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.sizes[a] for a in axis) for axis in self.axes)

    def atoms(self, order: Order) -> list[int]:
        """Return the atoms as a tensor of some axes stores them."""
        return [atom for axis in order if axis is not None for atom in self.axes[axis]]

    def on(self, index: int) -> Computed:
        """Return the value whose elements lie in another tensor as these do in their own."""
        return Computed(index, self.sizes, self.axes)


Value = Known | Computed


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the order in which images and signals of an ONNX value are stored: N, ..., C."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def stored_in(index: int, shape: Sequence[int], order: Order) -> Computed:
    """Return the value stored in a tensor of some shape whose axes are those of `order`."""
    axes: dict[int, tuple[int, ...]] = {}
    sizes: list[int] = []
    for axis, size in zip(order, shape, strict=True):
        if axis is not None:
            axes[axis] = (len(sizes),) if size > 1 else ()
            sizes += [size] if size > 1 else []
    return Computed(index, tuple(sizes), tuple(axes[k] for k in range(len(axes))))


def transposed(value: Computed, permutation: Sequence[int]) -> Computed:
    return Computed(value.index, value.sizes, tuple(value.axes[k] for k in permutation))


def reshaped(value: Computed, shape: Sequence[int]) -> Computed | None:
    """Return the value under another shape, None where an axis would take part of two atoms."""
    pending = [(atom, 0, value.sizes[atom]) for axis in value.axes for atom in axis][::-1]
    parts: dict[int, list[int]] = {}  # atom -> sizes of what it is split into
    groups: list[list[tuple[int, int]]] = []
    for size in shape:
        group: list[tuple[int, int]] = []
        while size > 1:
            if not pending:
                return None
            atom, part, have = pending.pop()
            taken = math.gcd(size, have)
            if taken not in (size, have):
                return None
            if taken < have:
                pending.append((atom, part + 1, have // taken))
            size //= taken
            parts.setdefault(atom, []).append(taken)
            group.append((atom, part))
        groups.append(group)
    if pending:
        return None
    number: dict[tuple[int, int], int] = {}
    sizes: list[int] = []
    for atom in range(len(value.sizes)):
        for part, size in enumerate(parts[atom]):
            number[atom, part] = len(sizes)
            sizes.append(size)
    return Computed(
        value.index, tuple(sizes), tuple(tuple(number[key] for key in group) for group in groups)
    )


def own_order(value: Computed, stored_shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the axes of the value in the order of memory, None where memory mixes them.

    Axes of size 1 may stand anywhere: where the stored shape says, else as in an image.
    """
    rank, everything = len(value.axes), list(range(len(value.sizes)))
    candidates = [tuple(range(rank)), channels_last(rank)]
    fitting = [c for c in candidates if value.atoms(c) == everything]
    for order in fitting:
        if tuple(value.shape[a] for a in order) == stored_shape:
            return order
    if fitting:
        return fitting[-1]
    natural = tuple(sorted(range(rank), key=lambda k: value.axes[k][:1] or (-1,)))
    return natural if value.atoms(natural) == everything else None


def features_in_memory(value: Computed, axis: int) -> NDArray[np.int64]:
    """Return the index along an axis of each of its elements, in the order of memory."""
    atoms = value.axes[axis]
    indices = np.arange(value.shape[axis]).reshape([value.sizes[a] for a in atoms])
    return indices.transpose(np.argsort(atoms)).reshape(-1) if atoms else indices.reshape(-1)
