"""Turn the untrusted bytes of a .onnx file into a checked Graph, images as NHWC."""

from tinydeploy.importers.onnx.read import read_file

__all__ = ["read_file"]
