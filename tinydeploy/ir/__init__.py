"""Hold a network as an immutable value: tensors, nodes, graph."""

from tinydeploy.ir.graph import Graph, Node, Tensor
from tinydeploy.ir.types import DType, Quantization

__all__ = ["DType", "Graph", "Node", "Quantization", "Tensor"]
