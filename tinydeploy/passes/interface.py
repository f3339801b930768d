"""Refuse graphs whose inputs and outputs are not the int8 tensors that the firmware exchanges."""

from __future__ import annotations

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph
from tinydeploy.ir.dump import describe_tensor


def check_interface(graph: Graph) -> None:
    """Raise ModelError unless every input and output is int8 with one scale and zero point.

    The operators check the tensors they read; an input may be read by none.
    """
    for what, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in (graph.tensors[i] for i in indices):
            quantization = tensor.quantization
            if tensor.dtype is not DType.INT8 or quantization is None or quantization.per_channel:
                raise ModelError(
                    f"an {what} of the model is not int8 with one scale",
                    f"'{tensor.name}' is {describe_tensor(tensor)}",
                    "quantise the model to int8 before deploying it",
                )
