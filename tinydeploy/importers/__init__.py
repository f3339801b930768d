"""Turn model files into Graphs."""

from tinydeploy.importers.read import read_model

__all__ = ["read_model"]


def is_tflite(path: Path) -> bool:
    """Tell whether a model that was read is a .tflite file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"
