"""Turn a description of a deployment folder into the JSON kept in it, and back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import msgspec

from tinydeploy.errors import UsageError
from tinydeploy.targets import Target, load_target

MANIFEST = "tinydeploy.json"


class ManifestWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Repeat what the plan was for."""

    schedule: Literal["auto", "layer", "streamed"]
    ram: int | None = None
    streamed_input: bool = False
    mac_factor: float = 1.0
    flash_input: bool = False


class ManifestStrips(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Say which of the first nodes are computed in how many strips."""

    end: int
    parts: int


class ManifestSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name the nodes that run together, and the inputs that arrive row by row meanwhile."""

    kind: str
    nodes: tuple[int, ...]
    feeds: tuple[int, ...] = ()
    paces: tuple[Literal["tight", "even", "wide", "stored"] | int, ...] = ()


class ManifestArena(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Say how many bytes of the offsets are in a memory; the next arena's follow."""

    memory: str
    bytes: int


class ManifestBoard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name the folder's copy of the board file, where the board is one of the user's own."""

    copy: Literal["board.toml"] = "board.toml"
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Describe a deployment folder, so that later commands know what it holds."""

    format: int
    version: str
    model: str
    copy: Literal["model.tflite", "model.tdm"] = "model.tflite"
    sha256: str
    target: str
    board: ManifestBoard | None = None
    profile: str
    allocator: str
    optimize: str
    wanted: ManifestWanted
    strips: ManifestStrips | None = None
    optimisation: str
    digest: str
    kernels: tuple[str, ...]
    segments: tuple[ManifestSegment, ...]
    offsets: tuple[int, ...]
    lower_bound: int
    arenas: tuple[ManifestArena, ...] = ()


def open_folder(folder: Path) -> None:
    """Create an output folder; raises UsageError for one that holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = any(folder.iterdir()) and not (folder / MANIFEST).is_file()
    except OSError as error:
        raise UsageError(f"cannot use {folder} for output", error.strerror or "") from error
    if foreign:
        raise UsageError(
            f"{folder} already holds other files", "", "name a new or empty folder with --out"
        )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Note in a deployment folder what it holds."""
    text = msgspec.json.format(msgspec.json.encode(manifest))
    (folder / MANIFEST).write_bytes(text + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Return what a deployment folder holds; raises UsageError."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise UsageError(
            f"{folder} is not a deployment folder", f"it has no {MANIFEST}",
            "make one with 'tinydeploy deploy MODEL --target T --out DIR'",
        ) from error  # fmt: skip
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{folder / MANIFEST} is damaged", str(error)) from error


def keep_board(folder: Path, target: Target) -> ManifestBoard | None:
    """Copy the user's board file into a deployment folder; a board known by name needs none."""
    if not target.file:
        return None
    board = ManifestBoard(sha256=hashlib.sha256(target.file).hexdigest())
    (folder / board.copy).write_bytes(target.file)
    return board


def load_board(folder: Path, manifest: Manifest) -> Target:
    """Return the target that a folder was made for: from its copy of the board file, or by name.

    Raises UsageError when the copy is missing or changed.
    """
    if manifest.board is None:
        return load_target(manifest.target)
    path = folder / manifest.board.copy
    target = load_target(path)
    found, expected = hashlib.sha256(target.file).hexdigest(), manifest.board.sha256
    if found != expected:
        raise UsageError(
            f"{path} is not the board file that was deployed for",
            f"SHA-256 {found[:16]}..., expected {expected[:16]}...",
            "put that one back, or deploy again with '--target' naming the changed one",
        )
    return target
