"""Turn a description of tensors and operators into the bytes of a .tflite file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MEAN": "ReducerOptions",
}
# Operators whose int8 form LiteRT knows only from a later version on, or that have one version.
_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "HARD_SWISH": 1,
    "RELU_N1_TO_1": 1, "RELU_0_TO_1": 1, "PRELU": 1, "NEG": 1, "ELU": 1, "SQUARE": 1, "SIN": 1,
    "COS": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Hold a tensor as the file will."""

    name: str | bytes
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: NDArray[Any] | None
    variable: bool


@dataclass(frozen=True, slots=True)
class StoredOperator:
    """Hold an operator as the file will; `options` are named as in the schema, in CamelCase."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    code: int | None
    custom: str | None


def tuple_of(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | np.ndarray) else (value,)


@dataclass(slots=True)
class Builder:
    """Collect tensors and operators, then write them as a flatbuffer of schema version 3."""

    tensors: list[StoredTensor] = field(default_factory=list)
    operators: list[StoredOperator] = field(default_factory=list)

    def tensor(
        self,
        shape: Iterable[int],
        dtype: str = "int8",
        scale: float | Sequence[float] | None = 0.5,
        zero: int | Sequence[int] = 0,
        *,
        axis: int = 0,
        data: Any = None,
        name: str | bytes | None = None,
        variable: bool = False,
    ) -> int:
        """Add a tensor and return its index; `scale` None leaves the quantisation out."""
        held = "int8" if dtype == "int4" else dtype
        array = None if data is None else np.ascontiguousarray(data, held)
        scales = () if scale is None else tuple(float(s) for s in tuple_of(scale))
        zeros = () if scale is None else tuple(int(z) for z in tuple_of(zero))
        label = f"t{len(self.tensors)}" if name is None else name
        self.tensors.append(
            StoredTensor(label, tuple(map(int, shape)), dtype, scales, zeros, axis, array, variable)
        )
        return len(self.tensors) - 1

    def constant(
        self, data: Any, dtype: str = "int32", scale: Any = None, zero: Any = 0, *, axis: int = 0
    ) -> int:
        """Add a constant of the data's own shape."""
        array = np.asarray(data, dtype)
        return self.tensor(array.shape, dtype, scale, zero, axis=axis, data=array)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int] | int,
        *,
        code: int | None = None,
        custom: str | None = None,
        **options: Any,
    ) -> None:
        """Add an operator; an input left out is -1, `code` overrides the operator's number."""
        outs = (outputs,) if isinstance(outputs, int) else tuple(outputs)
        self.operators.append(StoredOperator(name, tuple(inputs), outs, options, code, custom))

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """Return the file with one subgraph."""
        return write(self.tensors, self.operators, inputs, outputs)


def camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.lower().split("_"))


def options_table(name: str) -> str:
    """Return the schema's name of an operator's options, e.g. SoftmaxOptions."""
    return _OPTIONS.get(name, f"{camel(name)}Options")


def write(
    tensors: Sequence[StoredTensor],
    operators: Sequence[StoredOperator],
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    version: int = 3,
    align: Callable[[int], int] = lambda size: 16,
    description: str = "",
) -> bytes:
    """Write the flatbuffer; the data of constants is aligned to 16 bytes as LiteRT wants it."""
    b = flatbuffers.Builder(1024)
    buffers = [_empty_buffer(b)]
    written = []
    for t in tensors:
        number = 0
        if t.data is not None:
            number = len(buffers)
            raw = _nibbles(t.data) if t.dtype == "int4" else t.data.tobytes()
            buffers.append(_buffer(b, raw, align(len(raw))))
        written.append(_tensor(b, t, number))
    codes: dict[tuple[int, str | None, int], int] = {}
    stored = [_operator(b, o, codes) for o in operators]
    code_tables = [_code(b, *key) for key in codes]
    name = b.CreateString("main")
    parts = {
        "Tensors": _tables(b, written),
        "Inputs": _ints(b, inputs),
        "Outputs": _ints(b, outputs),
        "Operators": _tables(b, stored),
        "Name": name,
    }
    subgraph = _table(b, "SubGraph", parts)
    model = {
        "OperatorCodes": _tables(b, code_tables),
        "Subgraphs": _tables(b, [subgraph]),
        "Description": b.CreateString(description),
        "Buffers": _tables(b, buffers),
    }
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, version)
    for key, value in model.items():
        getattr(tflite, f"ModelAdd{key}")(b, value)
    b.Finish(tflite.ModelEnd(b), b"TFL3")
    return bytes(b.Output())


def _table(b: Any, kind: str, fields: dict[str, Any]) -> int:
    getattr(tflite, f"{kind}Start")(b)
    for key, value in fields.items():
        getattr(tflite, f"{kind}Add{key}")(b, value)
    return int(getattr(tflite, f"{kind}End")(b))


def _tables(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _ints(b: Any, values: Sequence[int]) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, np.int32)))


def _nibbles(data: NDArray[Any]) -> bytes:
    """Pack signed 4-bit numbers two to a byte, the first in the lower half."""
    flat = data.reshape(-1) & 15
    padded = np.append(flat, [0] * (flat.size % 2)).astype(np.uint8)
    return bytes(padded[::2] | padded[1::2] << 4)


def _empty_buffer(b: Any) -> int:
    return _table(b, "Buffer", {})


def _buffer(b: Any, raw: bytes, alignment: int) -> int:
    b.StartVector(1, len(raw), alignment)
    b.head -= len(raw)
    b.Bytes[b.head : b.head + len(raw)] = raw
    return _table(b, "Buffer", {"Data": b.EndVector()})


def _tensor(b: Any, t: StoredTensor, buffer: int) -> int:
    fields: dict[str, Any] = {
        "Shape": _ints(b, t.shape),
        "Name": b.CreateString(t.name),
    }
    if t.scales:
        fields["Quantization"] = _table_of_quantization(b, t)
    fields["Type"] = getattr(tflite.TensorType, t.dtype.upper())
    fields["Buffer"] = buffer
    if t.variable:
        fields["IsVariable"] = True
    return _table(b, "Tensor", fields)


def _table_of_quantization(b: Any, t: StoredTensor) -> int:
    scales = b.CreateNumpyVector(np.asarray(t.scales, np.float32))
    points = t.zero_points if len(t.zero_points) != 1 else t.zero_points * len(t.scales)
    zeros = b.CreateNumpyVector(np.asarray(points, np.int64))
    return _table(
        b,
        "QuantizationParameters",
        {"Scale": scales, "ZeroPoint": zeros, "QuantizedDimension": t.axis},
    )


def _operator(b: Any, o: StoredOperator, codes: dict[tuple[int, str | None, int], int]) -> int:
    code = getattr(tflite.BuiltinOperator, o.name) if o.code is None else o.code
    version = _VERSIONS.get(o.name, 2)
    number = codes.setdefault((code, o.custom, version), len(codes))
    kind = options_table(o.name)
    vectors = {
        key: _ints(b, value) if isinstance(value, list | tuple) else value
        for key, value in o.options.items()
    }
    options = _table(b, kind, vectors) if hasattr(tflite, f"{kind}Start") else None
    fields: dict[str, Any] = {"Inputs": _ints(b, o.inputs), "Outputs": _ints(b, o.outputs)}
    fields["OpcodeIndex"] = number
    if options is not None:
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, kind)
        fields["BuiltinOptions"] = options
    return _table(b, "Operator", fields)


def _code(b: Any, code: int, custom: str | None, version: int) -> int:
    fields: dict[str, Any] = {}
    if custom is not None:
        fields["CustomCode"] = b.CreateString(custom)
    fields |= {
        "DeprecatedBuiltinCode": min(code, 127),
        "BuiltinCode": code,
        "Version": version,
    }
    return _table(b, "OperatorCode", fields)
