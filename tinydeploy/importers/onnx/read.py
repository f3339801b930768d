"""Turn a .onnx file into a Graph: parse, compute what is constant, translate node by node.

Images lie as rows of pixels (NHWC) in the Graph; `Graph.input_axes` and `Graph.output_axes` say
what the file declares.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.importers.files import read_bounded, safe_text
from tinydeploy.importers.onnx import fold, load
from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.handlers import HANDLERS, WINDOWED, same_elements
from tinydeploy.importers.onnx.pairs import to_integer
from tinydeploy.importers.onnx.tidy import tidy
from tinydeploy.importers.onnx.values import (
    Computed,
    Known,
    Value,
    channels_last,
    own_order,
    stored_in,
)
from tinydeploy.ir import DType, Graph, Tensor
from tinydeploy.ir.verify import verify_graph

# What translating a damaged model may raise.
_DAMAGE = (
    IndexError, ValueError, TypeError, AttributeError, ArithmeticError, KeyError, MemoryError,
    RecursionError,
)  # fmt: skip


def read_file(path: Path) -> Graph:
    """Read a .onnx file; raises ModelError when it is unreadable, damaged or unsupported.

    Float models give float Graphs; with QuantizeLinear and DequantizeLinear, integer ones of the
    same scales. Raises UsageError without the package onnx.
    """
    data = read_bounded(path)
    model = load.parse(data, path)
    name = safe_text(path.stem)
    try:
        graph = _Reader(model, name, path.parent).graph()
    except _DAMAGE as error:
        raise ModelError(
            "the model file is damaged",
            f"{type(error).__name__}: {safe_text(str(error))}",
            "it may be truncated; export it again",
            str(path),
        ) from error
    graph = graph.replace(source_sha256=hashlib.sha256(data).hexdigest())
    verify_graph(graph)
    return graph


class _Reader:
    """Walk one model's nodes in order."""

    def __init__(self, model: Any, name: str, folder: Path) -> None:
        self.proto = model.graph
        self.opset = load.opset_of(model)
        self.folder = folder
        self.builder = Builder(name)
        self.values: dict[str, Value] = {}

    def graph(self) -> Graph:
        self._refuse_unknown()
        for tensor in self.proto.initializer:
            self.values[tensor.name] = Known(load.array_of(tensor, self.folder))
        inputs = self._inputs()
        for position, node in enumerate(self.proto.node):
            self._translate(node, position)
        outputs, output_axes = [], []
        for info in self.proto.output:
            value = self._value(info.name, "the list of outputs")
            if isinstance(value, Known):
                raise ModelError("an output of the model is constant", f"'{safe_text(info.name)}'")
            index, order = self._output(value)
            outputs.append(index)
            output_axes.append(order)
        if not inputs or not outputs:
            raise ModelError("the model has no input or no output", "", "export it again")
        b = self.builder
        graph = Graph(
            b.name,
            tuple(b.tensors),
            tuple(b.nodes),
            tuple(index for index, _ in inputs),
            tuple(outputs),
            input_axes=tuple(order for _, order in inputs),
            output_axes=tuple(output_axes),
        )
        return tidy(to_integer(tidy(graph)))

    def _refuse_unknown(self) -> None:
        unknown = Counter(
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for node in self.proto.node
            if node.domain not in ("", "ai.onnx")
            or not (node.op_type in HANDLERS or fold.folds(node.op_type))
        )
        if unknown:
            listed = ", ".join(f"{safe_text(k, 60)} ({n}x)" for k, n in unknown.most_common(9))
            raise ModelError(
                "the model uses ONNX operators that are not supported",
                listed,
                "docs/import.md lists what is supported",
            )

    def _inputs(self) -> list[tuple[int, tuple[int, ...]]]:
        """Add the graph's inputs; images and signals as their pixels lie in rows."""
        from onnx import TensorProto

        kinds = {TensorProto.FLOAT: DType.FLOAT32, TensorProto.FLOAT16: DType.FLOAT32,
                 TensorProto.INT8: DType.INT8}  # fmt: skip
        images = self._images()
        found = []
        for info in self.proto.input:
            if info.name in self.values:
                continue  # a constant listed among the inputs, as old files have it
            name = safe_text(info.name)
            kind = info.type.tensor_type.elem_type
            if kind not in kinds:
                raise ModelError(
                    "an input is neither float nor int8",
                    f"ONNX element type {kind}",
                    "export the model with float inputs",
                    name,
                )
            shape = load.input_shape(info)
            order = channels_last(len(shape)) if info.name in images else tuple(range(len(shape)))
            stored = tuple(shape[a] for a in order)
            index = self.builder.add(Tensor(name, stored, kinds[kind]))
            self.values[info.name] = stored_in(index, stored, order)
            found.append((index, order))
        return found

    def _images(self) -> set[str]:
        """Return the names of values that reach a convolution or pool in their own axes."""
        wanted: set[str] = set()
        for node in reversed(self.proto.node):
            if node.op_type in WINDOWED:
                wanted.update(node.input[:1])
            elif same_elements(node.op_type) and wanted.intersection(node.output):
                wanted.update(node.input)
        return wanted

    def _value(self, name: str, reader: str) -> Value:
        value = self.values.get(name)
        if value is None:
            raise ModelError(
                "a node reads a value that nothing has produced yet",
                f"'{safe_text(name)}' is part of a cycle or never written",
                where=reader,
            )
        return value

    def _translate(self, proto: Any, position: int) -> None:
        from onnx import helper

        outputs = tuple(proto.output)
        name = safe_text(outputs[0] if outputs else "") or f"node {position}"
        kind = proto.op_type
        inputs = tuple(self._value(n, name) if n else None for n in proto.input)
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        node = Operator(kind, name, inputs, outputs, attributes, self.opset)
        if kind == "Constant":
            results: list[Value] = [self._constant(node)]
        elif kind == "Shape" or not fold.folds(kind) or not all(
            isinstance(v, Known) for v in inputs if v is not None
        ):  # fmt: skip
            if kind not in HANDLERS:
                node.refuse("a value that is computed", "docs/import.md lists what is supported")
            results = HANDLERS[kind](self.builder, node)
        else:
            results = fold.compute(node, proto)
        for output, value in zip(outputs, results, strict=False):
            if output in self.values:
                raise ModelError("a value is written twice", f"'{safe_text(output)}'")
            if output:
                self.values[output] = value

    def _constant(self, node: Operator) -> Known:
        for name in ("value_float", "value_floats", "value_int", "value_ints"):
            if name in node.attributes:
                kind = np.float32 if "float" in name else np.int64
                return Known(np.array(node.attributes[name], kind))
        if "value" not in node.attributes:
            node.refuse("no value")
        return Known(load.array_of(node.attributes["value"], self.folder))

    def _output(self, value: Computed) -> tuple[int, tuple[int, ...]]:
        """Return the tensor of an output and its axes: as in memory, else moved to its own."""
        b = self.builder
        order = own_order(value, b.tensors[value.index].shape) or tuple(range(len(value.axes)))
        return b.arrange(value, order), order
