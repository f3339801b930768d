"""Turn model files into Graphs."""

from tinydeploy.importers.read import is_tflite, read_model

__all__ = ["is_tflite", "read_model"]
