"""Turn the untrusted bytes of a .onnx file into a checked ModelProto and its constants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.importers.files import read_bounded, safe_text
from tinydeploy.importers.onnx.values import Array
from tinydeploy.importers.operands import MAX_ELEMENTS, MAX_NODES, MAX_TENSORS, check_shape

MIN_OPSET, MAX_OPSET = 11, 26
# Of all external data together, as of a model file.
_DATA_HINT = "keep the model and its data in one folder, and give that data relative names"


def parse(data: bytes, path: Path) -> Any:
    """Return the ModelProto of a file's bytes; raises ModelError, UsageError without onnx."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            "reading .onnx models needs the package onnx", "", "pip install 'tinydeploy[onnx]'"
        ) from error
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise ModelError(
            "this is not an .onnx model",
            safe_text(str(error)),
            "it may be truncated; export it again",
            str(path),
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(
            "the model holds no network", "its graph has no nodes", "export it again", str(path)
        )
    graph = model.graph
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_TENSORS:
        raise ModelError(
            "the model is too large for a microcontroller",
            f"{len(graph.node):,} nodes and {len(graph.initializer):,} constants, "
            f"at most {MAX_NODES:,} and {MAX_TENSORS:,}",
            where=str(path),
        )
    return model


def opset_of(model: Any) -> int:
    """Return the version of the standard operators; raises ModelError where it is not known."""
    versions = [int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise ModelError(
            "the model's version of the ONNX operators is not supported",
            f"opset {versions}, supported are {MIN_OPSET} to {MAX_OPSET}",
            "export it with opset_version=17",
        )
    return versions[0]


def array_of(tensor: Any, folder: Path) -> Array:
    """Return a TensorProto's values; raises ModelError for damaged or external data out of bounds.

    Halves and doubles become float32.
    """
    from onnx import TensorProto, numpy_helper

    name = safe_text(tensor.name)
    shape = tuple(int(d) for d in tensor.dims)
    if any(s < 0 for s in shape) or math.prod(shape) > MAX_ELEMENTS or len(shape) > 8:
        raise ModelError("a constant has an absurdly large shape", f"{list(shape)}", where=name)
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = _external(tensor, folder, name)
        tensor = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw)
    try:
        array: Array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        raise ModelError(
            "a constant does not hold what its shape and type say",
            safe_text(str(error)),
            "the file may be damaged; export it again",
            name,
        ) from error
    if array.dtype.name in ("float16", "float64", "bfloat16"):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if array.dtype.name not in ("float32", "int8", "uint8", "int32", "int64", "bool"):
        raise ModelError(f"constants of type {array.dtype} are not supported", where=name)
    return array


def _external(tensor: Any, folder: Path, name: str) -> bytes:
    """Read data beside the model; a path that leaves its folder is refused."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    given = Path(location)
    refused = (
        not location or "\0" in location or "\\" in location
        or given.is_absolute() or ".." in given.parts
    )  # fmt: skip
    inside = folder.resolve()
    if refused or not (inside / given).resolve().is_relative_to(inside):
        raise ModelError(
            "the model keeps data outside its folder",
            f"'{safe_text(location)}'",
            _DATA_HINT,
            name,
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError as error:
        raise ModelError("the model's external data is damaged", "", "", name) from error
    data = read_bounded(inside / given)
    end = len(data) if length == -1 else offset + length
    if not 0 <= offset <= end <= len(data):
        raise ModelError(
            "the model's external data is too short",
            f"bytes {offset:,} to {end:,} of {len(data):,}",
            "copy it again together with the model",
            name,
        )
    return data[offset:end]


def input_shape(info: Any) -> tuple[int, ...]:
    """Return the fixed shape of a graph input; a symbolic first axis, the batch, is 1."""
    name = safe_text(info.name)
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        raise ModelError("an input is not a tensor of known rank", "", "", name)
    shape = []
    for position, axis in enumerate(info.type.tensor_type.shape.dim):
        known = axis.HasField("dim_value") and axis.dim_value > 0
        if not known and position > 0:
            raise ModelError(
                "an input has an axis of unknown size",
                f"axis {position} is '{safe_text(axis.dim_param, 40) or '?'}'",
                "export the model with fixed sizes; only the batch may be dynamic",
                name,
            )
        shape.append(int(axis.dim_value) if known else 1)
    check_shape(tuple(shape), name)
    return tuple(shape)
