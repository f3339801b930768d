"""Turn an integer Graph into a .tdm file and back: a zip of JSON and one .npy per constant."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import typing
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.importers.files import read_bounded
from tinydeploy.importers.operands import check_operands
from tinydeploy.ir import DType, Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.ops import Call, op_named, registry
from tinydeploy.ops.checks import run_checks

FORMAT = 1
MODEL = "model.json"
MAX_BYTES = 1 << 28
_MAX_ENTRIES = 20_000
_WHEN = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: equal models give equal files
_DAMAGE = (
    KeyError, ValueError, TypeError, IndexError, OverflowError, EOFError, OSError,
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError,
    RecursionError, AssertionError, AttributeError, ArithmeticError, SyntaxError, MemoryError,
)  # fmt: skip


class _Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scales: list[float]
    zero_points: list[int]
    axis: int = 0


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    dtype: str
    quantization: _Quantization | None = None
    constant: bool = False


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    op: str
    inputs: list[int | None]
    outputs: list[int]
    attributes: dict[str, Any] | None = None


class _Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    name: str
    tensors: list[_Tensor]
    nodes: list[_Node]
    inputs: list[int]
    outputs: list[int]
    float_inputs: list[int]
    float_outputs: list[int]
    input_axes: list[list[int]] = []
    output_axes: list[list[int]] = []
    quantization: dict[str, Any] = {}  # what made it and what it cost; for people, not read back


def read_file(path: Path) -> Graph:
    """Read a .tdm file; raises ModelError when it is unreadable, damaged or hostile."""
    return read_bytes(read_bounded(path))


def to_bytes(graph: Graph, about: dict[str, Any] | None = None) -> bytes:
    """Return a graph as a .tdm file; `about` is kept with it as JSON."""
    model = _Model(
        FORMAT,
        graph.name,
        [
            _Tensor(
                t.name,
                list(t.shape),
                t.dtype.value,
                _Quantization(
                    list(t.quantization.scales),
                    list(t.quantization.zero_points),
                    t.quantization.axis,
                )
                if t.quantization
                else None,
                t.constant,
            )
            for t in graph.tensors
        ],
        [
            _Node(n.name, n.op, list(n.inputs), list(n.outputs), _plain(n.attributes))
            for n in graph.nodes
        ],
        list(graph.inputs),
        list(graph.outputs),
        sorted(graph.float_inputs),
        sorted(graph.float_outputs),
        [list(axes) for axes in graph.input_axes],
        [list(axes) for axes in graph.output_axes],
        about or {},
    )
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:

        def write(name: str, content: bytes) -> None:
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)

        write(MODEL, msgspec.json.format(msgspec.json.encode(model), indent=1))
        for index, tensor in enumerate(graph.tensors):
            if tensor.data is not None:
                array = io.BytesIO()
                np.save(array, tensor.data, allow_pickle=False)
                write(f"tensors/{index}.npy", array.getvalue())
    return stream.getvalue()


def _plain(attributes: Any) -> dict[str, Any] | None:
    return None if attributes is None else msgspec.to_builtins(attributes)


def read_bytes(data: bytes) -> Graph:
    """Return the graph of a .tdm file; raises ModelError for one that is damaged or hostile."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            total = sum(e.file_size for e in entries)
            if total > MAX_BYTES or len(entries) > _MAX_ENTRIES:
                raise ModelError(
                    "the .tdm file is too large",
                    f"{total:,} bytes unpacked in {len(entries):,} entries",
                )
            model = msgspec.json.decode(_entry(archive, MODEL), type=_Model)
            if model.format != FORMAT:
                raise ModelError(
                    f".tdm format {model.format} is not known", f"this version reads {FORMAT}"
                )
            graph = _graph(model, archive)
    except _DAMAGE as error:
        raise ModelError(
            "the .tdm file is damaged",
            f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}",
            "write it again with 'tinydeploy quantize'",
        ) from error
    return graph.replace(source_sha256=hashlib.sha256(data).hexdigest())


def about(path: Path) -> dict[str, Any]:
    """Return what a .tdm file says of how it was made; raises ModelError."""
    try:
        with zipfile.ZipFile(path) as archive:
            found: dict[str, Any] = json.loads(_entry(archive, MODEL)).get("quantization", {})
            return found
    except _DAMAGE as error:
        raise ModelError("the .tdm file is damaged", str(error)[:120], where=str(path)) from error


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an entry's bytes; a header that lies about their number cannot make them more."""
    size = archive.getinfo(name).file_size
    if size > MAX_BYTES:
        raise ValueError(f"{name} of {size:,} bytes")
    with archive.open(name) as file:
        return file.read(size)


def _graph(model: _Model, archive: zipfile.ZipFile) -> Graph:
    tensors = []
    for index, t in enumerate(model.tensors):
        if len(t.shape) > 8 or any(not 1 <= s <= 1 << 24 for s in t.shape):
            raise ValueError(f"tensor {index} has shape {t.shape}")
        data = None
        if t.constant:
            raw = io.BytesIO(_entry(archive, f"tensors/{index}.npy"))
            data = constant(np.load(raw, allow_pickle=False))
        q = t.quantization
        if q is not None:
            _check_quantization(q, DType(t.dtype), index)
        tensors.append(
            Tensor(
                "".join(c if " " <= c <= "~" else "?" for c in t.name[:96]),
                tuple(t.shape),
                DType(t.dtype),
                Quantization(tuple(q.scales), tuple(q.zero_points), q.axis) if q else None,
                data,
            )
        )
    known = registry()
    if unknown := sorted({n.op[:40] for n in model.nodes} - known.keys()):
        raise ModelError("the model uses operators that are not supported", ", ".join(unknown))
    nodes = tuple(
        Node(n.name[:96], n.op, tuple(n.inputs), tuple(n.outputs), _attributes(n))
        for n in model.nodes
    )
    slots = range(len(model.inputs)), range(len(model.outputs))
    if not {*model.float_inputs} <= {*slots[0]} or not {*model.float_outputs} <= {*slots[1]}:
        raise ValueError("float inputs or outputs that do not exist")
    name = "".join(c if " " <= c <= "~" else "?" for c in model.name[:96])
    graph = Graph(
        name, tuple(tensors), nodes, tuple(model.inputs), tuple(model.outputs), "",
        frozenset(model.float_inputs), frozenset(model.float_outputs),
        _axes(model.input_axes, model.inputs, tensors),
        _axes(model.output_axes, model.outputs, tensors),
    )  # fmt: skip
    verify_graph(graph)
    for node in graph.nodes:
        call, op = Call(graph, node), op_named(node.op)
        check_operands(op, call)
        run_checks(op, call)
        if op.shape(call) != [t.shape for t in call.outputs]:
            raise ValueError(f"node '{node.name}' does not have the shapes it computes")
    return graph


def _axes(
    given: list[list[int]], indices: list[int], tensors: list[Tensor]
) -> tuple[tuple[int, ...], ...]:
    """Return the axes that a model file declares, one permutation per input or output, or none."""
    wanted = [list(range(len(tensors[i].shape))) for i in indices]
    if given and [sorted(axes) for axes in given] != wanted:
        raise ValueError(f"axes {given}")
    return tuple(map(tuple, given))


def _check_quantization(q: _Quantization, dtype: DType, index: int) -> None:
    usual = all(2.0**-100 <= s <= 2.0**100 for s in q.scales)  # False for NaN, too
    if not q.scales or not usual or len(q.zero_points) not in (1, len(q.scales)):
        raise ValueError(f"tensor {index} has scales that are no positive numbers of usual size")
    low, high = dtype.bounds if dtype is not DType.FLOAT32 else (0, 0)
    if not all(low <= z <= high for z in q.zero_points):
        raise ValueError(f"tensor {index} has zero points out of range")


def _attributes(node: _Node) -> Any:
    """Return attributes as the operator's own type, which its `parse` declares."""
    if node.attributes is None:
        return None
    kind = typing.get_type_hints(op_named(node.op).parse).get("return")
    if kind is None:
        raise ValueError(f"{node.op} has no attributes")
    return msgspec.convert(node.attributes, kind, strict=False)
