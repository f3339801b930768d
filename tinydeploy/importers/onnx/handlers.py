"""Say which function translates which ONNX operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinydeploy.importers.onnx import dense, pointwise, quantized, shapes, windows
from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import Value

Handler = Callable[[Builder, Operator], list[Value]]


def _read_directly(b: Builder, node: Operator) -> list[Value]:
    """Constant: its value."""
    raise AssertionError("constants are read where their data is checked")


HANDLERS: dict[str, Handler] = {
    "Abs": pointwise.function("ABS"),
    "Add": pointwise.arithmetic,
    "AveragePool": windows.average_pool,
    "BatchNormalization": pointwise.batch_normalization,
    "Cast": pointwise.cast,
    "Clip": pointwise.clip,
    "Concat": shapes.concat,
    "Constant": _read_directly,
    "Conv": windows.conv,
    "Cos": pointwise.function("COS"),
    "DequantizeLinear": quantized.dequantize_linear,
    "Div": pointwise.divide,
    "Dropout": pointwise.same_value,
    "Elu": pointwise.elu,
    "Exp": pointwise.function("EXP"),
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": shapes.gather,
    "Gelu": pointwise.gelu,
    "Gemm": dense.gemm,
    "GlobalAveragePool": windows.global_average_pool,
    "GlobalMaxPool": windows.global_max_pool,
    "HardSigmoid": pointwise.hard_sigmoid,
    "HardSwish": pointwise.function("HARD_SWISH"),
    "Identity": pointwise.same_value,
    "LeakyRelu": pointwise.leaky_relu,
    "Log": pointwise.function("LOG"),
    "MatMul": dense.matmul,
    "MaxPool": windows.max_pool,
    "Mul": pointwise.arithmetic,
    "Neg": pointwise.negate,
    "PRelu": pointwise.prelu,
    "Pad": shapes.pad,
    "QuantizeLinear": quantized.quantize_linear,
    "ReduceMean": pointwise.reduce_mean,
    "Relu": pointwise.function("RELU"),
    "Reshape": shapes.reshape,
    "Resize": windows.resize,
    "Shape": shapes.shape_of,
    "Sigmoid": pointwise.function("LOGISTIC"),
    "Sin": pointwise.function("SIN"),
    "Slice": shapes.cut,
    "Softmax": pointwise.softmax,
    "Split": shapes.split,
    "Sqrt": pointwise.function("SQRT"),
    "Squeeze": shapes.squeeze,
    "Sub": pointwise.arithmetic,
    "Tanh": pointwise.function("TANH"),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}

# Their first input is an image or a signal, channels second.
WINDOWED = frozenset((
    "AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool",
    "Resize",
))  # fmt: skip
_OTHER_AXES = frozenset((
    "Flatten", "Gather", "Gemm", "MatMul", "Reshape", "Shape", "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip


def same_elements(kind: Any) -> bool:
    """Tell whether an operator keeps the axes of its inputs."""
    return kind in HANDLERS and kind not in _OTHER_AXES and kind not in WINDOWED
