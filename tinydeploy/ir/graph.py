"""Hold a network as an immutable, hashable value that every stage reads and none changes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir.types import DType, Quantization


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """Describe one value of the network; `data` is set for constants (read-only array)."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    quantization: Quantization | None = None
    data: NDArray[Any] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.size

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def scale(self) -> float:
        assert self.quantization is not None
        return self.quantization.scale

    @property
    def zero_point(self) -> int:
        return self.quantization.zero_point if self.quantization else 0

    @property
    def rows(self) -> int:
        """Rows that a band kernel counts: all axes but the last two, width and channels."""
        return math.prod(self.shape[:-2])

    @property
    def row_bytes(self) -> int:
        return self.bytes // self.rows if self.rows else 0


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """Apply one operator: indices into `Graph.tensors`; an optional input left out is None."""

    name: str
    op: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    attributes: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Hold a whole network in execution order.

    `source_sha256` identifies the file it came from; `border` says which inputs and outputs the
    file declares as float and the firmware handles as integers (see passes.border).
    `input_axes` and `output_axes` name, for each axis of an input or output here, the axis in the
    model file, (0, 2, 3, 1) for an image that the file declares as NCHW; empty where all agree.
    """

    name: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source_sha256: str = ""
    float_inputs: frozenset[int] = field(default_factory=frozenset)
    float_outputs: frozenset[int] = field(default_factory=frozenset)
    input_axes: tuple[tuple[int, ...], ...] = ()
    output_axes: tuple[tuple[int, ...], ...] = ()

    def tensor(self, index: int | None) -> Tensor:
        """Return the tensor at an index that must be present."""
        assert index is not None
        return self.tensors[index]

    def node_inputs(self, node: Node) -> list[Tensor]:
        return [self.tensors[i] for i in node.inputs if i is not None]

    def activation_inputs(self, node: Node) -> list[int]:
        """Indices of the node's inputs that are computed at run time."""
        return [i for i in node.inputs if i is not None and not self.tensors[i].constant]

    def replace(self, **changes: Any) -> Graph:
        return dataclasses.replace(self, **changes)

    def digest(self) -> str:
        """SHA-256 over everything that determines the generated code."""
        sha = hashlib.sha256()
        for line in self._lines():
            sha.update(line.encode())
        for tensor in self.tensors:
            if tensor.data is not None:
                sha.update(tensor.data.tobytes())
        return sha.hexdigest()

    def _lines(self) -> Iterable[str]:
        yield f"{self.name} {self.inputs} {self.outputs}\n"
        for t in self.tensors:
            yield f"{t.name} {t.shape} {t.dtype.value} {t.quantization} {t.constant}\n"
        for n in self.nodes:
            yield f"{n.name} {n.op} {n.inputs} {n.outputs} {n.attributes}\n"


def constant(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as a contiguous, read-only one that a Tensor may hold."""
    array = np.ascontiguousarray(array).reshape(array.shape)  # which had made a scalar a vector
    array.flags.writeable = False
    return array
