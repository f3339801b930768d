"""Give tests the writer of .tflite files, with which they build models by hand."""

from tinydeploy.export.flatbuffer import Builder, StoredTensor, write

__all__ = ["Builder", "StoredTensor", "write"]
