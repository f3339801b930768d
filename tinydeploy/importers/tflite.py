"""Turn the untrusted bytes of a .tflite file into a checked Graph.

The schema is TensorFlow Lite's schema.fbs, version 3. Every length is compared with the file's
size before it is used, so a hostile file cannot make the importer loop or allocate.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.importers import shapes
from tinydeploy.importers.files import read_bounded, safe_text
from tinydeploy.importers.operands import (
    MAX_NODES,
    MAX_RANK,
    MAX_SCALE,
    MAX_TENSORS,
    MIN_SCALE,
    check_operands,
    check_shape,
)
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.ops import Call, Op, registry
from tinydeploy.ops.base import ACTIVATIONS
from tinydeploy.ops.checks import run_checks

# What reading a damaged flatbuffer may raise.
_DAMAGE = (
    struct.error, IndexError, ValueError, TypeError, AttributeError, ArithmeticError, KeyError,
    MemoryError,
)  # fmt: skip


def read_file(path: Path) -> Graph:
    """Read a .tflite file; raises ModelError when it is unreadable, damaged or unsupported."""
    return read_bytes(read_bounded(path), path.stem)


def read_bytes(data: bytes, name: str) -> Graph:
    """Turn the bytes of a .tflite file into a Graph; raises ModelError."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(
            "this is not a .tflite model",
            f"{len(data):,} bytes, no 'TFL3' identifier at offset 4",
            "give a TensorFlow Lite flatbuffer",
        )
    try:
        graph = _Reader(data, safe_text(name)).graph()
    except _DAMAGE as error:
        detail = str(error).splitlines()[0][:120] if str(error) else ""
        raise ModelError(
            "the model file is damaged",
            f"{type(error).__name__}: {detail}" if detail else type(error).__name__,
            "it may be truncated; export it again",
        ) from error
    verify_graph(graph)
    return graph


@dataclass(frozen=True, slots=True)
class OperatorReader:
    """Give an operator's `parse` checked access to its options and constants."""

    op: str
    operator: Any
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]

    def refuse(self, what: str) -> NoReturn:
        raise ModelError(f"{self.op} with {what} is not supported", where=self.outputs[0].name)

    def options(self, table: type[Any]) -> Any:
        """Return the operator's options, or the schema's defaults where the file has none."""
        from flatbuffers.table import Table

        found = table()
        stored: Table | None = self.operator.BuiltinOptions()
        if stored is None:
            # An empty table: a vtable of 4 bytes without fields, then the offset back to it.
            found.Init(bytearray(struct.pack("<HHi", 4, 4, 4)), 4)
        else:
            found.Init(stored.Bytes, stored.Pos)
        return found

    def positive(self, value: int, what: str) -> int:
        if not 1 <= value <= 1 << 20:
            self.refuse(f"a {what} of {value}")
        return int(value)

    def padding(self, code: int) -> str:
        if code not in (0, 1):
            self.refuse(f"padding code {code}")
        return ("SAME", "VALID")[code]

    def activation(self, code: int) -> str:
        if not 0 <= code < len(ACTIVATIONS):
            self.refuse(f"fused activation code {code}")
        return ACTIVATIONS[code]

    def has_constant(self, position: int) -> bool:
        if position >= len(self.inputs):
            return False
        tensor = self.inputs[position]
        return tensor is not None and tensor.constant

    def constant(self, position: int, what: str) -> NDArray[Any]:
        if not self.has_constant(position):
            self.refuse(f"{what} that are not constant")
        tensor = self.inputs[position]
        assert tensor is not None and tensor.data is not None
        if tensor.dtype not in (DType.INT32, DType.INT64) or tensor.elements > 64:
            self.refuse(f"{what} of type {tensor.dtype.value}{list(tensor.shape)}")
        return tensor.data

    def shape(self, position: int) -> tuple[int, ...]:
        tensor = self.inputs[position]
        if tensor is None:
            self.refuse(f"input {position} left out")
        return tensor.shape

    def output_shape(self, position: int) -> tuple[int, ...]:
        return self.outputs[position].shape


class _Reader:
    """Walk one flatbuffer."""

    def __init__(self, data: bytes, name: str) -> None:
        import tflite

        self.data = data
        self.name = name
        self.model = tflite.Model.GetRootAsModel(data, 0)
        self.operator_names = _codes(tflite.BuiltinOperator)
        self.type_names = _codes(tflite.TensorType)
        if self.model.Version() != 3:
            raise ModelError(f"schema version {self.model.Version()} is not supported", "only 3 is")
        if self.model.SubgraphsLength() < 1:
            raise ModelError("the model holds no network", "its list of subgraphs is empty")
        self.subgraph = self.model.Subgraphs(0)

    def graph(self) -> Graph:
        nodes = self._count(self.subgraph.OperatorsLength(), MAX_NODES, "operators")
        count = self._count(self.subgraph.TensorsLength(), MAX_TENSORS, "tensors")
        ops = [self._operator_name(i) for i in range(nodes)]
        known = registry()
        if unknown := Counter(name for name in ops if name not in known.keys() | shapes.FOLDED):
            listed = ", ".join(f"{name} ({n}x)" for name, n in sorted(unknown.items()))
            raise ModelError(
                "the model uses operators that are not supported",
                listed,
                "'tinydeploy ops' lists what is supported",
            )
        used: set[int] = set()
        wiring: list[tuple[tuple[int | None, ...], tuple[int, ...]]] = []
        for i in range(nodes):
            operator = self.subgraph.Operators(i)
            ins = self._indices(operator.InputsLength(), operator.Inputs, count, optional=True)
            outs = self._indices(operator.OutputsLength(), operator.Outputs, count)
            if not outs or not ins:
                raise ModelError(
                    "an operator has no inputs or no outputs", f"operator {i} {ops[i]}"
                )
            wiring.append((ins, tuple(o for o in outs if o is not None)))
            used.update(j for j in (*ins, *outs) if j is not None)
        g = self.subgraph
        inputs = [j for j in self._indices(g.InputsLength(), g.Inputs, count) if j is not None]
        outputs = [j for j in self._indices(g.OutputsLength(), g.Outputs, count) if j is not None]
        if not inputs or not outputs:
            raise ModelError("the model has no input or no output")
        used.update(inputs, outputs)
        tensors = {j: self._tensor(j) for j in sorted(used)}
        return self._assemble(ops, known, wiring, tensors, tuple(inputs), tuple(outputs))

    def _assemble(
        self,
        ops: list[str],
        known: dict[str, Op],
        wiring: list[tuple[tuple[int | None, ...], tuple[int, ...]]],
        by_index: dict[int, Tensor],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
    ) -> Graph:
        """Renumber the tensors in use and parse operators in order, inferring every shape."""
        number = {old: new for new, old in enumerate(by_index)}
        tensors = list(by_index.values())
        nodes: list[Node] = []
        partial = Graph(self.name, (), (), (), ())
        for i, (ins, outs) in enumerate(wiring):
            new_ins = tuple(None if j is None else number[j] for j in ins)
            new_outs = tuple(number[j] for j in outs)
            reader = OperatorReader(
                ops[i],
                self.subgraph.Operators(i),
                tuple(None if j is None else tensors[j] for j in new_ins),
                tuple(tensors[j] for j in new_outs),
            )
            sizes = shapes.folded(ops[i], reader)
            if sizes is not None:
                data = constant(sizes)
                first = tensors[new_outs[0]]
                tensors[new_outs[0]] = replace(first, shape=data.shape, data=data)
                continue
            if ops[i] not in known:
                reader.refuse("an input that is computed")
            op = known[ops[i]]
            label = tensors[new_outs[0]].name or f"{op.name.lower()}_{i}"
            draft = Node(label, op.name, new_ins, new_outs)
            node = replace(draft, attributes=op.parse(reader))
            call = Call(partial.replace(tensors=tuple(tensors)), node)
            check_operands(op, call)
            run_checks(op, call)
            for j, shape in zip(new_outs, op.shape(call), strict=True):
                check_shape(shape, tensors[j].name)
                tensors[j] = replace(tensors[j], shape=tuple(int(s) for s in shape))
            source = call.input()
            if op.name == "DEQUANTIZE" and source.constant and source.dtype is DType.FLOAT32:
                # It widens halves, which reading them did already.
                tensors[new_outs[0]] = replace(tensors[new_outs[0]], data=source.data)
                continue
            nodes.append(node)
        return Graph(
            self.name,
            tuple(tensors),
            tuple(nodes),
            tuple(number[j] for j in inputs),
            tuple(number[j] for j in outputs),
            hashlib.sha256(self.data).hexdigest(),
        )

    def _count(self, length: int, most: int, what: str) -> int:
        if length > most or length * 4 > len(self.data):
            raise ModelError(
                f"the model claims {length:,} {what}", f"at most {most:,} are accepted"
            )
        return int(length)

    def _indices(
        self, length: int, at: Any, count: int, *, optional: bool = False
    ) -> tuple[int | None, ...]:
        found: list[int | None] = []
        for k in range(self._count(length, 4096, "values on one operator")):
            index = int(at(k))
            if index == -1 and optional:
                found.append(None)
            elif 0 <= index < count:
                found.append(index)
            else:
                raise ModelError(
                    "the model names a tensor that does not exist", f"{index} of {count}"
                )
        return tuple(found)

    def _operator_name(self, position: int) -> str:
        index = self.subgraph.Operators(position).OpcodeIndex()
        if index >= self.model.OperatorCodesLength():
            raise ModelError("an operator names a code that does not exist", f"code {index}")
        code = self.model.OperatorCodes(index)
        value = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if self.operator_names.get(value) == "CUSTOM":
            return f"custom operator '{safe_text(code.CustomCode(), 40)}'"
        return self.operator_names.get(value, f"operator code {value}")

    def _tensor(self, index: int) -> Tensor:
        stored = self.subgraph.Tensors(index)
        name = safe_text(stored.Name())
        rank = self._count(stored.ShapeLength(), MAX_RANK, f"axes of tensor '{name}'")
        shape = tuple(int(stored.Shape(k)) for k in range(rank))
        check_shape(shape, name)
        kind = self.type_names.get(stored.Type(), str(stored.Type())).lower()
        # Constants alone may be of these types; the others' values widen exactly.
        packed, half = kind == "int4", kind == "float16"
        try:
            dtype = DType.INT8 if packed else DType.FLOAT32 if half else DType(kind)
        except ValueError:
            raise ModelError(f"element type {kind} is not supported", where=name) from None
        quantization = self._quantization(stored, dtype, name)
        stored_type = np.dtype(np.float16) if half else dtype.numpy
        data = self._data(stored, shape, stored_type, name, packed)
        if (packed or half) and data is None:
            raise ModelError(f"only constants may be {kind}", where=name)
        if data is not None and half:
            data = constant(data.astype(np.float32))
        return Tensor(name, shape, dtype, quantization, data)

    def _data(
        self, stored: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, packed: bool
    ) -> NDArray[Any] | None:
        """Return a constant's values, None for a tensor without; packed ones are nibbles."""
        index = stored.Buffer()
        if stored.IsVariable():
            raise ModelError("networks with state are not supported", where=name)
        if index >= self.model.BuffersLength():
            raise ModelError("a tensor names a buffer that does not exist", f"{index}", where=name)
        buffer = self.model.Buffers(index)
        if buffer is None or buffer.DataLength() == 0:
            return None
        raw = np.asarray(buffer.DataAsNumpy()).tobytes()
        need = -(-math.prod(shape) // 2) if packed else math.prod(shape) * dtype.itemsize
        if len(raw) != need:
            raise ModelError(
                "a constant does not hold as many bytes as its shape says",
                f"{len(raw):,} bytes for {dtype.name}{list(shape)}, which needs {need:,}",
                where=name,
            )
        if packed:
            return constant(_unpack_nibbles(raw, math.prod(shape)).reshape(shape))
        return constant(np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape))

    def _quantization(self, stored: Any, dtype: DType, name: str) -> Quantization | None:
        q = stored.Quantization()
        if q is None or q.ScaleLength() == 0:
            return None
        length = self._count(q.ScaleLength(), 65536, f"scales of tensor '{name}'")
        scales = np.asarray(q.ScaleAsNumpy(), np.float32)
        points = np.zeros(1, np.int64)
        if q.ZeroPointLength():
            self._count(q.ZeroPointLength(), 65536, f"zero points of tensor '{name}'")
            points = np.asarray(q.ZeroPointAsNumpy(), np.int64)
        if dtype in (DType.INT8, DType.UINT8, DType.INT16):
            low, high = dtype.bounds
            # Written so that NaN fails.
            if not np.all((scales >= MIN_SCALE) & (scales <= MAX_SCALE)):
                raise ModelError("a scale is not a positive number of usual size", where=name)
            if points.min() < low or points.max() > high or len(points) not in (1, length):
                raise ModelError(
                    f"a zero point is outside {dtype.value}", f"{points.min()}..{points.max()}",
                    where=name,
                )  # fmt: skip
        return Quantization(
            tuple(float(s) for s in scales),
            tuple(int(z) for z in points),
            int(q.QuantizedDimension()),
        )


def _unpack_nibbles(raw: bytes, count: int) -> NDArray[np.int8]:
    """Return signed 4-bit numbers as int8, the lower half of each byte first (TFLite INT4)."""
    data = np.frombuffer(raw, np.uint8)
    nibbles = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)


def _codes(enumeration: type[Any]) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}
