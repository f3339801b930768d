"""Turn a model file of any supported kind into a Graph, by what its bytes say it is."""

from __future__ import annotations

from pathlib import Path

from tinydeploy.errors import ModelError
from tinydeploy.ir import Graph

KINDS = ".tflite, .tdm, .onnx, .keras, .h5, or the folder of a SavedModel"


def read_model(path: Path) -> Graph:
    """Read a model: .tflite, .tdm, .onnx, .keras, .h5, or a SavedModel's folder.

    Images lie as rows of pixels (NHWC), whatever the file's own order. Raises ModelError for what
    is unreadable, damaged or unsupported, UsageError when the package that reads it is missing.
    """
    start, suffix = _start(path), path.suffix.lower()
    if is_tflite(path) or suffix == ".tflite":
        from tinydeploy.importers.tflite import read_file

        return read_file(path)
    if start[:4] == b"PK\x03\x04" and suffix != ".keras":
        from tinydeploy.importers import tdm

        return tdm.read_file(path)
    if suffix == ".onnx":
        from tinydeploy.importers.onnx import read_file as read_onnx

        return read_onnx(path)
    if path.is_dir() or start[:8] == b"\x89HDF\r\n\x1a\n" or suffix in (".keras", ".h5", ".hdf5"):
        from tinydeploy.importers.keras import read_file as read_keras

        return read_keras(path)
    if not path.exists():
        raise ModelError("the model file cannot be read", "no such file", where=str(path))
    raise ModelError("this is not a model of a known kind", "", f"give {KINDS}", str(path))


def is_tflite(path: Path) -> bool:
    """Tell whether a model is a .tflite file, by its bytes."""
    return _start(path)[4:8] == b"TFL3"


def _start(path: Path) -> bytes:
    """Return the first bytes of a regular file, nothing of anything else."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(8)
    except (OSError, ValueError):
        return b""
