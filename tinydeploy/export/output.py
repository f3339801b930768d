"""Turn the files of an export into a folder or an archive."""

from __future__ import annotations

import json
from pathlib import Path

from tinydeploy.codegen import SourceTree
from tinydeploy.errors import UsageError
from tinydeploy.export.library import MARKER

ARCHIVES = (".zip", ".pack")


def write(tree: SourceTree, name: str, out: Path, top: bool = True) -> None:
    """Write an export of a library of that name to a folder, or to an archive (.zip, .pack).

    A folder must be new, empty, or hold an earlier export of the same library in the same format,
    which has the same files. In an archive everything is below a folder of the library's name,
    unless `top` is false. Raises UsageError for another folder and for what cannot be written.
    """
    try:
        if out.suffix in ARCHIVES:
            prefix = f"{name}/" if top else ""
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(SourceTree.of({f"{prefix}{p}": t for p, t in tree.items()}).zip())
            return
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            _check_own(out, json.loads(tree[MARKER]))
        tree.write(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}", error.strerror or str(error)) from error


def _check_own(folder: Path, ours: dict[str, str]) -> None:
    """Raise UsageError for a folder with anything but an earlier export of this kind."""
    hint = "name a new or empty folder with --out"
    marker = folder / MARKER
    if not marker.is_file():
        raise UsageError(f"{folder} already holds other files", f"it has no {MARKER}", hint)
    try:
        found = json.loads(marker.read_bytes())
        was = [found[key] for key in ("library", "format")]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"{marker} is damaged", str(error)[:200], hint) from error
    now = [ours[key] for key in ("library", "format")]
    if was != now:
        raise UsageError(
            f"{folder} holds another export",
            f"of {str(was[0])[:60]!r} for {str(was[1])[:60]!r}, not of {now[0]!r} for {now[1]!r}",
            hint,
        )
