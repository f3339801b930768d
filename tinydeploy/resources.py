"""Find the data folders (templates, targets, firmware) in a source tree or an installed wheel."""

from __future__ import annotations

from pathlib import Path

from tinydeploy.errors import TinydeployError

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """Return the absolute path of a data folder.

    A source tree keeps the folders beside the package; a wheel carries them inside it.
    Raises TinydeployError when the installation is incomplete.
    """
    for candidate in (_PACKAGE.parent / name, _PACKAGE / "data" / name):
        if candidate.is_dir():
            return candidate
    raise TinydeployError(
        f"the data folder '{name}' is missing",
        f"looked beside and inside {_PACKAGE}",
        "reinstall tinydeploy",
    )
