"""Turn a Keras model or a SavedModel into a Graph, by way of TensorFlow's own .tflite converter.

TensorFlow runs in a process of its own: it is slow to load, noisy, and may crash on a hostile
file. Nothing the model file holds is run: files with code in them are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.importers import tflite
from tinydeploy.importers.files import MAX_FILE_BYTES, read_bounded, safe_text
from tinydeploy.ir import Graph

# Loading TensorFlow takes some 5 s; no network for a microcontroller takes minutes to convert.
TIMEOUT_S = 300
_MAX_FILES = 1000
_CODE_HINT = (
    "replace Lambda and custom layers by Keras' own, or convert the model to .tflite yourself"
)
# What opening a damaged archive may raise.
_DAMAGE = (
    zipfile.BadZipFile, OSError, ValueError, KeyError, NotImplementedError, RuntimeError, EOFError,
    RecursionError, zlib.error,
)  # fmt: skip
_SCRIPT = Path(__file__).with_name("_convert_keras.py")


def read_file(path: Path) -> Graph:
    """Read a .keras or .h5 file, or a SavedModel's folder, as a float Graph.

    Raises ModelError when it is unreadable, damaged, holds code (a Lambda layer), or takes longer
    than TIMEOUT_S to convert; UsageError without the package tensorflow.
    """
    data = _check_folder(path) if path.is_dir() else _check_file(path)
    if find_spec("tensorflow") is None:
        raise UsageError(
            "reading Keras models and SavedModels needs TensorFlow",
            "",
            "pip install 'tinydeploy[tensorflow]'",
        )
    graph = tflite.read_bytes(_convert(path), path.stem)
    return graph.replace(source_sha256=hashlib.sha256(data).hexdigest())


def _check_file(path: Path) -> bytes:
    """Return a file's bytes; raises ModelError for archives that unpack to too much."""
    data = read_bounded(path)
    if path.suffix.lower() == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                total = sum(entry.file_size for entry in archive.infolist())
                _check_size(total, path)
                _check_code(json.loads(archive.read("config.json")), path)
        except _DAMAGE as error:
            raise ModelError(
                "this is not a .keras model",
                safe_text(str(error)),
                "save it with model.save('model.keras')",
                str(path),
            ) from error
    return data


def _check_code(config: Any, path: Path) -> None:
    """Raise ModelError for a layer that is not Keras' own, wherever in the configuration."""
    pending = [config]
    while pending:
        found = pending.pop()
        if isinstance(found, list):
            pending += found
        if not isinstance(found, dict):
            continue
        pending += found.values()
        kind = found.get("class_name")
        module = found.get("module")
        if kind is None or "config" not in found:
            continue
        own = module is None or module == "keras" or str(module).startswith("keras.")
        if not own or kind in ("Lambda", "__lambda__", "function"):
            raise ModelError(
                "the model holds code that would run while it is read",
                safe_text(f"'{kind}' of {module}"),
                _CODE_HINT,
                str(path),
            )


def _check_folder(path: Path) -> bytes:
    """Return what identifies a SavedModel: its files, in the order of their names."""
    if not (path / "saved_model.pb").is_file():
        raise ModelError(
            "this folder is not a SavedModel",
            "it has no saved_model.pb",
            "save one with model.export('folder')",
            str(path),
        )
    files = []
    for count, file in enumerate(path.rglob("*")):
        if count > _MAX_FILES:
            raise ModelError("the SavedModel holds too many files", f"over {_MAX_FILES}")
        if file.is_symlink():
            raise ModelError(
                "the SavedModel keeps data outside its folder",
                f"'{safe_text(file.name)}' is a link",
                "replace the link by the file",
                str(path),
            )
        if file.is_file():
            files.append(file)
    _check_size(sum(f.stat().st_size for f in files), path)
    return b"".join(str(f.relative_to(path)).encode() + read_bounded(f) for f in sorted(files))


def _check_size(size: int, path: Path) -> None:
    if size > MAX_FILE_BYTES:
        raise ModelError(
            "the model is too large for a microcontroller",
            f"{size:,} bytes, at most {MAX_FILE_BYTES:,}",
            where=str(path),
        )


def _convert(path: Path) -> bytes:
    """Return the model as a float .tflite file."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "TF_ENABLE_ONEDNN_OPTS": "0"}
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as folder:
        out = Path(folder) / "model.tflite"
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_SCRIPT), str(path.resolve()), str(out)],
                env={**os.environ, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                "TensorFlow did not convert the model in time",
                f"{TIMEOUT_S} s",
                "convert it to .tflite yourself and give that",
                str(path),
            ) from error
        if done.returncode == 0 and out.is_file():
            return read_bounded(out)
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    said = safe_text(lines[-1] if lines else b"", 200)
    if "Lambda" in said or "deserializ" in said or "unsafe" in said:
        raise ModelError(
            "the model holds code that would run while it is read",
            said,
            _CODE_HINT,
            str(path),
        )
    raise ModelError(
        "TensorFlow cannot convert the model",
        said or f"it ended with code {done.returncode}",
        "save it with the version of Keras installed here, or convert it to .tflite yourself",
        str(path),
    )
