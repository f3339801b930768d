"""Turn .npz files, or a seed, into checked input and expected-output arrays for a network."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph, Tensor
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float

Array = NDArray[Any]
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Samples:
    """Hold stored integer inputs, one tuple of arrays per sample, in the network's shapes.

    `expected` holds what the outputs must be, float32 where the model declares float; `labels`
    the true classes; `floats` the first outputs of the float network that was quantised.
    """

    inputs: tuple[tuple[Array, ...], ...]
    expected: tuple[tuple[Array, ...], ...] | None = None
    labels: Array | None = None
    origin: str = "random"
    floats: tuple[Array, ...] | None = None


def random_samples(graph: Graph, count: int, seed: int = 0) -> Samples:
    """Return uniform random inputs; of every eight, one is all-lowest and one all-highest."""
    generator = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        sample = []
        for i in graph.inputs:
            tensor = graph.tensors[i]
            low, high = tensor.dtype.bounds
            values = generator.integers(low, high + 1, tensor.shape).astype(tensor.dtype.numpy)
            if k % 4 == 2:
                values = np.full_like(values, low if k % 8 == 2 else high)
            sample.append(values)
        rows.append(tuple(sample))
    return Samples(tuple(rows))


def load_samples(
    graph: Graph, inputs: Path, expect: Path | None = None, limit: int | None = None
) -> Samples:
    """Read inputs (arrays in0, in1, ... or the tensors' names, samples along the first axis).

    Where the model takes real numbers, float0, float1, ... come first.

    Expected outputs come from `expect` (out0, out1, ... or names), labels from an array `labels`
    in either file. Raises UsageError for anything that does not fit the network.
    """
    given = read_npz(inputs)
    columns = [
        _input_column(graph, slot, _given(given, graph, slot, inputs), inputs)
        for slot in range(len(graph.inputs))
    ]
    count = len(columns[0])
    if any(len(c) != count for c in columns) or count == 0:
        raise UsageError(
            f"{inputs} holds no samples or unequal numbers of them", f"{[len(c) for c in columns]}"
        )
    wanted = read_npz(expect) if expect else {}
    expected = None
    if expect:
        outs = [
            _output_column(
                graph, slot, pick(wanted, f"out{slot}", graph.tensors[o], expect), expect
            )
            for slot, o in enumerate(graph.outputs)
        ]
        if any(len(c) != count for c in outs):
            raise UsageError(
                f"{expect} does not hold one output per input",
                f"{[len(c) for c in outs]} for {count} samples",
            )
        expected = tuple(zip(*outs, strict=True))
    labels = wanted.get("labels", given.get("labels"))
    if labels is not None and (labels.shape != (count,) or labels.dtype.kind not in "iu"):
        raise UsageError("labels must be one integer per sample", f"{labels.dtype}{labels.shape}")
    keep = slice(0, limit)
    return Samples(
        tuple(zip(*columns, strict=True))[keep],
        expected[keep] if expected else None,
        None if labels is None else labels[keep],
        inputs.name,
    )


def as_declared(graph: Graph, slot: int, stored: Array) -> Array:
    """Return an output in the type that the model declares: float32 behind a DEQUANTIZE."""
    if slot not in graph.float_outputs:
        return stored
    tensor = graph.tensors[graph.outputs[slot]]
    return dequantize(stored, tensor.scale, tensor.zero_point)


def input_as_declared(graph: Graph, slot: int, stored: Array) -> Array:
    """Return an input in the type that the model declares: float32 before a QUANTIZE."""
    if slot not in graph.float_inputs:
        return stored
    tensor = graph.tensors[graph.inputs[slot]]
    return dequantize(stored, tensor.scale, tensor.zero_point)


def read_npz(path: Path) -> dict[str, Array]:
    """Return the arrays of an .npz file of bounded size; raises UsageError."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_BYTES:
            raise UsageError(
                f"{path} is too large", f"{total:,} bytes unpacked, at most {MAX_BYTES:,}"
            )
        with np.load(path, allow_pickle=False) as data:
            return {name: np.asarray(data[name]) for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise UsageError(
            f"{path} cannot be read as .npz", str(error).splitlines()[0] if str(error) else "",
            "write it with numpy.savez(path, in0=...)",
        ) from error  # fmt: skip


def _given(arrays: Mapping[str, Array], graph: Graph, slot: int, path: Path) -> Array:
    real = f"float{slot}"
    if slot in graph.float_inputs and real in arrays:
        return arrays[real]
    return pick(arrays, f"in{slot}", graph.tensors[graph.inputs[slot]], path)


def pick(arrays: Mapping[str, Array], key: str, tensor: Tensor, path: Path) -> Array:
    """Return the array of a slot's or a tensor's name; raises UsageError."""
    for name in (key, tensor.name):
        if name in arrays:
            return arrays[name]
    raise UsageError(
        f"{path} has no array '{key}'",
        f"it has: {', '.join(sorted(arrays)) or 'nothing'}",
        f"name the array '{key}' or '{tensor.name}'",
    )


def split(
    array: Array, tensor: Tensor, what: str, path: Path, axes: Sequence[int] = ()
) -> list[Array]:
    """Cut along the first axis; each sample has the tensor's shape, with or without its batch 1.

    `axes` are those of Graph.input_axes or Graph.output_axes. Samples in the shape that the model
    file declares are moved; a shape that may be either is taken for the declared one.
    """
    if tuple(axes) not in ((), tuple(range(len(axes)))):
        declared = tuple(tensor.shape[axes.index(k)] for k in range(len(axes)))
        if array.shape[1:] in (declared, declared[1:] if declared[0] == 1 else declared):
            full = array.reshape(-1, *declared)
            array = full.transpose(0, *(k + 1 for k in axes))
    shapes = [tensor.shape]
    if tensor.shape[:1] == (1,):
        shapes.append(tensor.shape[1:])
    if array.ndim == 0 or array.shape[1:] not in shapes:
        raise UsageError(
            f"{path}: {what} has the wrong shape",
            f"{list(array.shape)}; each sample must be {list(tensor.shape)}",
            f"stack the samples: [N, {', '.join(map(str, shapes[-1]))}]",
        )
    return [np.ascontiguousarray(sample.reshape(tensor.shape)) for sample in array]


def axes_of(all_axes: Sequence[tuple[int, ...]], slot: int) -> tuple[int, ...]:
    """Return the axes of one input or output as its model file declares them."""
    return all_axes[slot] if all_axes else ()


def _integers(array: Array, tensor: Tensor, what: str, path: Path) -> Array:
    low, high = tensor.dtype.bounds
    if array.dtype.kind not in "iu":
        raise UsageError(
            f"{path}: {what} has the wrong type",
            f"{array.dtype}; the model takes {tensor.dtype.value}",
            f"quantise it: round(x / {tensor.scale:.7g}) + {tensor.zero_point}",
        )
    if array.size and (array.min() < low or array.max() > high):
        raise UsageError(
            f"{path}: {what} has values outside {tensor.dtype.value}",
            f"{array.min()} to {array.max()}",
        )
    return array.astype(tensor.dtype.numpy)


def _input_column(graph: Graph, slot: int, array: Array, path: Path) -> list[Array]:
    tensor = graph.tensors[graph.inputs[slot]]
    what = f"input {slot}"
    if slot in graph.float_inputs and array.dtype.kind == "f":
        if not np.all(np.isfinite(array)):
            raise UsageError(f"{path}: {what} holds NaN or infinity")
        array = quantize_float(array, tensor.scale, tensor.zero_point, tensor.dtype.value)
    integers = _integers(array, tensor, what, path)
    return split(integers, tensor, what, path, axes_of(graph.input_axes, slot))


def _output_column(graph: Graph, slot: int, array: Array, path: Path) -> list[Array]:
    tensor = graph.tensors[graph.outputs[slot]]
    what = f"output {slot}"
    if slot in graph.float_outputs and array.dtype.kind == "f":
        array = array.astype(np.float32)
    else:
        array = _integers(array, tensor, what, path)
    return split(array, tensor, what, path, axes_of(graph.output_axes, slot))
