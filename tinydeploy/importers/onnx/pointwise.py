"""Turn ONNX operators that work element by element, and sums over axes, into ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import Array, Computed, Known, Value
from tinydeploy.ops._elementwise import Attributes as Fused
from tinydeploy.ops.mean import Attributes as Mean
from tinydeploy.ops.softmax import Attributes as Softmax

_ARITHMETIC = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
_LIMITS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 1.0): "RELU_0_TO_1"}
# A clamp is no wider than this when nothing clamps at all.
_UNBOUNDED = 3e38


def arithmetic(b: Builder, node: Operator) -> list[Value]:
    """Add, Sub, Mul of two values, or of one and a constant."""
    return [combine(b, node, _ARITHMETIC[node.kind], node.input(0), node.input(1), node.name)]


def divide(b: Builder, node: Operator) -> list[Value]:
    """Div by a constant: the product with its reciprocal."""
    divisor = node.known(1, "a divisor").array.astype(np.float32)
    if not np.all(divisor != 0):
        node.refuse("a divisor of 0")
    return [combine(b, node, "MUL", node.computed(), Known(1 / divisor), node.name)]


def negate(b: Builder, node: Operator) -> list[Value]:
    """Neg: the product with -1."""
    return [scaled(b, node, node.computed(), -1.0, node.name)]


def combine(
    b: Builder, node: Operator, op: str, left: Value, right: Value, name: str,
    activation: str = "NONE",
) -> Computed:  # fmt: skip
    """Append an operator of two values, in one order of their axes."""
    rank = max(len(left.shape), len(right.shape))
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        node.refuse(f"shapes {list(left.shape)} and {list(right.shape)}")
    wide = [_widened(v, rank) if isinstance(v, Computed) else v for v in (left, right)]
    both = [v for v in wide if isinstance(v, Computed)]
    leader = next((v for v in both if v.shape == shape), both[0])
    others = [v for v in wide if v is not leader]
    if all(isinstance(v, Known) and v.array.size == 1 for v in others):
        pair = [v.index if v is leader else _scalar(b, v, name) for v in wide]
        if shape == leader.shape:
            return leader.on(b.emit(op, pair, Fused(activation), name))
    order = b.order(leader)
    indices = [
        b.arrange(v, order) if isinstance(v, Computed) else b.operand(v, order, f"{name}_{k}")
        for k, v in enumerate(wide)
    ]
    return b.result(b.emit(op, indices, Fused(activation), name), order)


def _scalar(b: Builder, value: Value, name: str) -> int:
    assert isinstance(value, Known)
    return b.operand(value, tuple(range(value.array.ndim)), f"{name}_constant")


def _widened(value: Computed, rank: int) -> Computed:
    """Return the value with leading axes of size 1."""
    missing = rank - len(value.axes)
    return Computed(value.index, value.sizes, ((),) * missing + value.axes)


def scaled(b: Builder, node: Operator, x: Computed, factor: float, name: str) -> Computed:
    """Append the product with a number, nothing for 1."""
    if factor == 1.0:
        return x
    return combine(b, node, "MUL", x, Known(np.array([factor], np.float32)), name)


def batch_normalization(b: Builder, node: Operator) -> list[Value]:
    """BatchNormalization with constant statistics: a product and a sum per channel.

    Computed in float64 as (x - mean) / sqrt(variance + epsilon) * scale + shift.
    """
    if node.attributes.get("training_mode", 0):
        node.refuse("training_mode", "export the model for inference (model.eval())")
    x = node.computed()
    scale, shift, mean, variance = (
        node.known(k, "a statistic").array.astype(np.float64).reshape(-1) for k in range(1, 5)
    )
    if len(x.shape) < 2 or {len(v) for v in (scale, shift, mean, variance)} != {x.shape[1]}:
        node.refuse(f"statistics of {scale.size} channels for {list(x.shape)}")
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if not np.all(variance + epsilon > 0):
        node.refuse("a negative variance")
    factor = scale / np.sqrt(variance + epsilon)

    def per_channel(values: Array) -> Known:
        return Known(values.astype(np.float32).reshape(-1, *(1,) * (len(x.shape) - 2)))

    product = combine(b, node, "MUL", x, per_channel(factor), f"{node.name}_scaled")
    return [combine(b, node, "ADD", product, per_channel(shift - mean * factor), node.name)]


def function(name: str, attributes: Any = None) -> Any:
    """Return the handler of an operator that is one of ours as it stands."""

    def handler(b: Builder, node: Operator) -> list[Value]:
        return [b.same(name, node.computed(), attributes, node.name)]

    handler.__doc__ = f"{name}."
    return handler


def leaky_relu(b: Builder, node: Operator) -> list[Value]:
    """LeakyRelu with a slope from 0 on."""
    from tinydeploy.ops.leaky_relu import Attributes

    alpha = float(node.attributes.get("alpha", 0.01))
    if not 0.0 <= alpha <= 1024.0:
        node.refuse(f"alpha {alpha}")
    return [b.same("LEAKY_RELU", node.computed(), Attributes(alpha), node.name)]


def prelu(b: Builder, node: Operator) -> list[Value]:
    """PRelu with one slope for all elements."""
    x, slopes = node.computed(), node.known(1, "a slope").array.reshape(-1)
    if not slopes.size or not np.all(slopes == slopes[0]):
        node.refuse("a slope per channel", "use one slope for all: nn.PReLU()")
    slope = b.constant(f"{node.name}_slope", slopes[:1])
    return [x.on(b.emit("PRELU", (x.index, slope), None, node.name))]


def elu(b: Builder, node: Operator) -> list[Value]:
    """Elu with alpha 1."""
    if float(node.attributes.get("alpha", 1.0)) != 1.0:
        node.refuse(f"alpha {node.attributes['alpha']}", "use alpha=1")
    return [b.same("ELU", node.computed(), None, node.name)]


def gelu(b: Builder, node: Operator) -> list[Value]:
    """Gelu, exact or in its tanh form."""
    from tinydeploy.ops.gelu import Attributes

    approximate = node.attributes.get("approximate", b"none") == b"tanh"
    return [b.same("GELU", node.computed(), Attributes(approximate), node.name)]


def clip(b: Builder, node: Operator) -> list[Value]:
    """Clip: as RELU, RELU6 or RELU_N1_TO_1; from 0 to another bound as a scaled RELU6."""
    x = node.computed()
    bounds = []
    for position, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = float(node.attributes.get(name, default))
        if node.optional(position) is not None:
            value = float(node.known(position, f"a {name}").array.reshape(-1)[0])
        bounds.append(value)
    low, high = bounds
    if low <= -_UNBOUNDED and high >= _UNBOUNDED:
        return [x]
    if low == 0 and high >= _UNBOUNDED:
        return [b.same("RELU", x, None, node.name)]
    if (low, high) in _LIMITS:
        return [b.same(_LIMITS[low, high], x, None, node.name)]
    if low != 0 or not 0 < high < _UNBOUNDED:
        node.refuse(f"bounds {low:g} and {high:g}", "the lower bound must be 0, or both -1 and 1")
    six = scaled(b, node, x, 6 / high, f"{node.name}_scaled")
    six = b.same("RELU6", six, None, f"{node.name}_clamped")
    return [scaled(b, node, six, high / 6, node.name)]


def hard_sigmoid(b: Builder, node: Operator) -> list[Value]:
    """HardSigmoid, max(0, min(1, alpha * x + beta)), as RELU6 of six times the line over six."""
    alpha = float(node.attributes.get("alpha", 0.2))
    beta = float(node.attributes.get("beta", 0.5))
    return [_hard_sigmoid(b, node, node.computed(), alpha, beta, node.name)]


def _hard_sigmoid(
    b: Builder, node: Operator, x: Computed, alpha: float, beta: float, name: str
) -> Computed:
    slope = 1.0 if abs(6 * alpha - 1) < 1e-6 else 6 * alpha
    line = scaled(b, node, x, slope, f"{name}_scaled")
    shift = Known(np.array([6 * beta], np.float32))
    six = combine(b, node, "ADD", line, shift, f"{name}_clamped", "RELU6")
    return scaled(b, node, six, 1 / 6, name)


def softmax(b: Builder, node: Operator) -> list[Value]:
    """Softmax over one axis; before opset 13 over all from an axis on."""
    x = node.computed()
    rank = len(x.shape)
    axis = node.axis(int(node.attributes.get("axis", -1 if node.opset >= 13 else 1)), rank)
    last = {axis} if node.opset >= 13 else {a for a in range(axis, rank) if x.shape[a] > 1}
    if len(last) > 1:
        node.refuse(f"axes {sorted(last)}", "export the model with opset 13 or later")
    axis = next(iter(last), rank - 1)
    order = (*(a for a in b.order(x) if a != axis), axis)
    index = b.arrange(x, order)
    return [b.result(b.emit("SOFTMAX", (index,), Softmax(1.0), node.name), order)]


def reduce_mean(b: Builder, node: Operator) -> list[Value]:
    """ReduceMean over constant axes."""
    x = node.computed()
    rank = len(x.shape)
    axes = node.attributes.get("axes")
    if axes is None:
        axes = node.integers(1, "axes")
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return [x]
    reduced = {node.axis(int(a), rank) for a in axes} if axes else set(range(rank))
    order = b.order(x)
    positions = tuple(k for k, axis in enumerate(order) if axis in reduced)
    index = b.emit("MEAN", (b.arrange(x, order),), Mean(positions, True), node.name)
    out = b.result(index, order)
    if node.attributes.get("keepdims", 1):
        return [out]
    kept = tuple(axis for k, axis in enumerate(out.axes) if k not in reduced)
    return [Computed(index, out.sizes, kept)]


def same_value(b: Builder, node: Operator) -> list[Value]:
    """Identity, and Dropout outside training."""
    if node.optional(2) is not None and node.known(2, "a training mode").array.any():
        node.refuse("training_mode", "export the model for inference (model.eval())")
    return [node.input()]


def cast(b: Builder, node: Operator) -> list[Value]:
    """Cast of a value computed in float to another float type: nothing."""
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if node.attributes.get("to") not in kinds:
        node.refuse("a computed value and a type that is not float")
    return [node.computed()]
