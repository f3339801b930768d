"""Turn a path into the bytes of a model file, never more of them than a model may have."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from tinydeploy.errors import ModelError

MAX_FILE_BYTES = 64 << 20


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a file; raises ModelError when it is unreadable, too large or no file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # A directory, or a pipe or device that might never end.
            raise ModelError("the model is not a file", where=str(path))
        size = status.st_size
        if size > MAX_FILE_BYTES:
            raise ModelError(
                "the model file is too large for a microcontroller",
                f"{size:,} bytes, at most {MAX_FILE_BYTES:,}",
                where=str(path),
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError("the model file cannot be read", reason, where=str(path)) from error


def safe_text(raw: bytes | str | None, limit: int = 96) -> str:
    """Return a name from the file as printable text of bounded length."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw or ""
    return re.sub(r"[^\x20-\x7e]", "?", text[:limit])
