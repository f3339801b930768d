"""Hold generated files as a value: relative path to bytes, with one digest over all of them."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SourceTree(Mapping[str, bytes]):
    """Map relative POSIX paths to file contents, sorted by path."""

    files: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, files: Mapping[str, bytes | str]) -> SourceTree:
        """Build a tree; text is encoded as UTF-8."""
        return cls(
            tuple(
                (path, text.encode() if isinstance(text, str) else text)
                for path, text in sorted(files.items())
            )
        )

    def __getitem__(self, path: str) -> bytes:
        return dict(self.files)[path]

    def __iter__(self) -> Iterator[str]:
        return (path for path, _ in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def digest(self) -> str:
        """SHA-256 over paths and contents."""
        sha = hashlib.sha256()
        for path, data in self.files:
            sha.update(f"{path}\0{len(data)}\0".encode())
            sha.update(data)
        return sha.hexdigest()

    def write(self, folder: Path) -> None:
        """Write all files below a folder, leaving alone those that hold the same bytes."""
        for path, data in self.files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_file() or target.read_bytes() != data:
                target.write_bytes(data)

    def zip(self) -> bytes:
        """Return a zip archive of the tree, the same bytes for the same tree."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in self.files:
                archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data)
        return buffer.getvalue()
