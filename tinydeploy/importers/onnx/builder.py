"""Collect the tensors and nodes of the Graph that an ONNX network becomes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.importers.onnx.values import (
    Array,
    Computed,
    Known,
    Order,
    Value,
    own_order,
    stored_in,
)
from tinydeploy.importers.operands import check_operands, check_shape
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ops import Call, registry
from tinydeploy.ops.checks import run_checks
from tinydeploy.ops.reshape import Attributes as NewShape
from tinydeploy.ops.transpose import Attributes as Permutation


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """Give a handler an ONNX node with its inputs as values."""

    kind: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int

    def refuse(self, what: str, hint: str = "") -> NoReturn:
        raise ModelError(f"ONNX {self.kind} with {what} is not supported", "", hint, self.name)

    def input(self, position: int = 0) -> Value:
        value = self.optional(position)
        if value is None:
            raise ModelError(
                f"ONNX {self.kind} lacks an input that it needs", f"input {position}", "", self.name
            )
        return value

    def optional(self, position: int) -> Value | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def computed(self, position: int = 0) -> Computed:
        value = self.input(position)
        if isinstance(value, Known):
            self.refuse(f"a constant as input {position}")
        return value

    def known(self, position: int, what: str) -> Known:
        value = self.input(position)
        if not isinstance(value, Known):
            self.refuse(f"{what} that is computed", "export the model with fixed sizes and weights")
        return value

    def integers(self, position: int, what: str) -> list[int] | None:
        """Return a short list of integers, None where the input is left out."""
        if self.optional(position) is None:
            return None
        array = self.known(position, what).array
        if array.dtype.kind not in "iu" or array.size > 64:
            self.refuse(f"{what} of {array.dtype}{list(array.shape)}")
        return [int(v) for v in np.atleast_1d(array).reshape(-1)]

    def axis(self, value: int, rank: int) -> int:
        if not -rank <= value < rank:
            self.refuse(f"axis {value} of a value with {rank} axes")
        return value % rank


@dataclass(slots=True)
class Builder:
    """Append nodes; every shape is inferred and checked as it is written."""

    name: str
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    makers: dict[int, Node] = field(default_factory=dict)
    views: dict[tuple[int, tuple[int, ...], tuple[int, ...]], int] = field(default_factory=dict)

    def add(self, tensor: Tensor) -> int:
        check_shape(tensor.shape, tensor.name)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, array: Array, quantization: Quantization | None = None) -> int:
        kind = array.dtype.name if quantization else "float32"
        data = constant(array.astype(kind))
        return self.add(Tensor(name, tuple(data.shape), DType(kind), quantization, data))

    def emit(
        self,
        op: str,
        inputs: Sequence[int | None],
        attributes: Any,
        name: str,
        dtype: DType | None = None,
        quantization: Quantization | None = None,
    ) -> int:
        """Append a node and return the tensor that it writes; its type is its input's."""
        known = registry()
        if op not in known:
            raise ModelError(
                "the model uses operators that are not supported",
                op,
                "'tinydeploy ops' lists what is supported",
                name,
            )
        source = self.tensors[inputs[0] or 0]
        out = Tensor(name, (), dtype or source.dtype, quantization)
        if dtype is None and source.dtype is not DType.FLOAT32:
            out = replace(out, quantization=source.quantization)
        node = Node(name, op, tuple(inputs), (len(self.tensors),), attributes)
        call = Call(Graph(self.name, (*self.tensors, out), (), (), ()), node)
        check_operands(known[op], call)
        run_checks(known[op], call)
        (shape,) = known[op].shape(call)
        index = self.add(replace(out, shape=tuple(int(s) for s in shape)))
        self.nodes.append(node)
        self.makers[index] = node
        return index

    def withdraw(self, index: int) -> None:
        """Take back the node and tensor written last."""
        assert index == len(self.tensors) - 1 and self.nodes[-1].outputs == (index,)
        self.tensors.pop()
        del self.makers[self.nodes.pop().outputs[0]]

    def describe(self, index: int, quantization: Quantization) -> None:
        """Say what the integers of an input mean."""
        self.tensors[index] = replace(self.tensors[index], quantization=quantization)

    def graph(self) -> Graph:
        """Return the tensors so far, for questions about one node."""
        return Graph(self.name, tuple(self.tensors), (), (), ())

    def reshape(self, index: int, shape: tuple[int, ...]) -> int:
        """Return a tensor of the same bytes and another shape."""
        tensor = self.tensors[index]
        if tensor.shape == shape:
            return index
        maker = self.makers.get(index)
        if maker is not None and maker.op == "RESHAPE":
            return self.reshape(maker.inputs[0] or 0, shape)
        if (index, (), shape) not in self.views:
            self.views[index, (), shape] = self.emit(
                "RESHAPE", (index,), NewShape(shape), f"{tensor.name}_reshaped"
            )
        return self.views[index, (), shape]

    def arrange(self, value: Computed, order: Order) -> int:
        """Return the tensor that holds a value with its axes in some order.

        Only where memory has another order is anything moved.
        """
        shape = tuple(1 if a is None else value.shape[a] for a in order)
        runs: list[list[int]] = []  # atoms that follow each other before and after
        for atom in value.atoms(order):
            if runs and runs[-1][-1] + 1 == atom:
                runs[-1].append(atom)
            else:
                runs.append([atom])
        if len(runs) <= 1:
            return self.reshape(value.index, shape)
        before = sorted(runs)
        permutation = tuple(before.index(run) for run in runs)
        merged = tuple(math.prod(value.sizes[a] for a in run) for run in before)
        key = (value.index, permutation, merged)
        if key not in self.views:
            source = self.reshape(value.index, merged)
            name = f"{self.tensors[value.index].name}_transposed"
            self.views[key] = self.emit("TRANSPOSE", (source,), Permutation(permutation), name)
        return self.reshape(self.views[key], shape)

    def order(self, value: Computed) -> tuple[int, ...]:
        """Return the order in which arranging the axes of a value moves least."""
        found = own_order(value, self.tensors[value.index].shape)
        return tuple(range(len(value.axes))) if found is None else found

    def operand(self, value: Known, order: Sequence[int], name: str) -> int:
        """Return the constant tensor that goes with values stored in some order of their axes."""
        rank = len(order)

        def moved(array: Array) -> Array:
            full = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(order)
            shape = list(full.shape)
            while len(shape) > 1 and shape[0] == 1:
                shape.pop(0)
            return full.reshape(shape)

        if value.stored is not None and len(value.stored.scales) == 1:
            stored = value.stored
            if stored.integers.dtype == np.int8:
                q = Quantization(stored.scales, stored.zero_points)
                return self.constant(name, moved(stored.integers), q)
        return self.constant(name, moved(value.array))

    def same(self, op: str, value: Computed, attributes: Any, name: str) -> Computed:
        """Append a function of one value, wherever its elements lie."""
        return value.on(self.emit(op, (value.index,), attributes, name))

    def result(self, index: int, order: Order) -> Computed:
        return stored_in(index, self.tensors[index].shape, order)
