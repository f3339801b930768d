"""Turn .npz and .npy files into checked float32 samples for a float network, with labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import UsageError
from tinydeploy.ir import Graph, Tensor
from tinydeploy.verify.samples import MAX_BYTES, axes_of, pick, read_npz, split

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class FloatSamples:
    """Hold float32 inputs, one tuple of arrays per sample, in the network's shapes.

    `labels` are the true classes, or 0 and 1 for normal and abnormal, one per sample.
    """

    inputs: tuple[tuple[Array, ...], ...]
    labels: Array | None = None
    origin: str = "random"


def load_floats(
    graph: Graph, path: Path, labels: Path | None = None, limit: int | None = None
) -> FloatSamples:
    """Read inputs: an .npz with float0, float1, ... or in0, ... or the tensors' names, or one .npy.

    Samples lie along the first axis. Labels come from
    the file `labels` (.npy), else from an array `labels` of the .npz. Raises UsageError for
    anything that does not fit the network.
    """
    given = {"in0": _read_npy(path)} if path.suffix == ".npy" else read_npz(path)
    columns = [
        _column(
            _named(given, slot, graph.tensors[i], path),
            graph.tensors[i],
            slot,
            path,
            axes_of(graph.input_axes, slot),
        )
        for slot, i in enumerate(graph.inputs)
    ]
    count = len(columns[0])
    if count == 0 or any(len(c) != count for c in columns):
        raise UsageError(
            f"{path} holds no samples or unequal numbers of them", f"{[len(c) for c in columns]}"
        )
    truth = _read_npy(labels) if labels else given.get("labels")
    if truth is not None:
        truth = truth.reshape(-1) if truth.size == count else truth
        if truth.shape != (count,) or truth.dtype.kind not in "iub":
            raise UsageError(
                "labels must be one integer per sample",
                f"{truth.dtype}{list(truth.shape)} for {count} samples",
                "save class numbers: numpy.save(path, labels.astype(int))",
            )
        truth = truth.astype(np.int64)
    keep = slice(0, limit)
    return FloatSamples(
        tuple(zip(*columns, strict=True))[keep],
        None if truth is None else truth[keep],
        path.name,
    )


def _named(given: dict[str, Array], slot: int, tensor: Tensor, path: Path) -> Array:
    """Return an input's array; a file may have it both in float and as stored integers."""
    if f"float{slot}" in given:
        return given[f"float{slot}"]
    return pick(given, f"in{slot}", tensor, path)


def _column(
    array: Array, tensor: Tensor, slot: int, path: Path, axes: tuple[int, ...]
) -> list[Array]:
    what = f"input {slot}"
    if array.dtype.kind != "f":
        raise UsageError(
            f"{path}: {what} has the wrong type", f"{array.dtype}; the model takes real numbers",
            "save what the model was trained on, scaled alike: x.astype(numpy.float32)",
        )  # fmt: skip
    with np.errstate(over="ignore"):
        real = array.astype(np.float32)
    if bad := real.size - int(np.isfinite(real).sum()):
        raise UsageError(
            f"{path}: {what} holds NaN or infinity", f"{bad:,} of {real.size:,} values"
        )
    return split(real, tensor, what, path, axes)


def _read_npy(path: Path) -> Array:
    """Return the array of a .npy file of bounded size; raises UsageError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large", f"{path.stat().st_size:,} bytes")
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise UsageError(f"{path} is no .npy file of one array")
        return found
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"{path} cannot be read as .npy", str(error).splitlines()[0] if str(error) else "",
            "write it with numpy.save(path, array)",
        ) from error  # fmt: skip
