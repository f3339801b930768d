"""Refuse graphs whose inputs and outputs are not what the firmware exchanges: int8 or int16."""

from __future__ import annotations

from tinydeploy.errors import ModelError
from tinydeploy.ir import DType, Graph
from tinydeploy.ir.dump import describe_tensor


def check_interface(graph: Graph) -> None:
    """Raise ModelError unless inputs and outputs are int8 or int16 with one scale and zero point.

    The operators check the tensors they read; an input may be read by none.
    """
    for what, indices in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in (graph.tensors[i] for i in indices):
            quantization = tensor.quantization
            integer = tensor.dtype in (DType.INT8, DType.INT16)
            if not integer or quantization is None or quantization.per_channel:
                raise ModelError(
                    f"an {what} of the model is not int8 or int16 with one scale",
                    f"'{tensor.name}' is {describe_tensor(tensor)}",
                    "quantise the model before deploying it",
                )
