"""Compute what depends on constants only: shapes, and weights that an exporter left unfolded."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.importers.onnx.builder import Operator
from tinydeploy.importers.onnx.values import Array, Known, Value
from tinydeploy.importers.operands import MAX_ELEMENTS

# Operators whose result is not larger than their inputs together, as they broadcast.
_FOLDED = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "Div", "Dropout", "Equal", "Exp", "Flatten",
    "Floor", "Gather", "Greater", "Identity", "Less", "Max", "Min", "Mod", "Mul", "Neg", "Not",
    "Or", "Pow", "Reciprocal", "ReduceProd", "ReduceSum", "Reshape", "Shape",
    "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where",
))  # fmt: skip
# What grows without bounds from small inputs: computed only up to this many elements.
_GROWING = frozenset({"ConstantOfShape", "Range", "Expand"})
_SMALL = 1 << 16


def folds(kind: str) -> bool:
    """Tell whether an operator on constants is computed here."""
    return kind in _FOLDED or kind in _GROWING


def compute(node: Operator, proto: Any) -> list[Value]:
    """Return the outputs of a node all of whose inputs are constants; raises ModelError."""
    from onnx.reference import ReferenceEvaluator

    arrays = [v.array for v in node.inputs if isinstance(v, Known)]
    _bound(node, arrays)
    names = [n for n in proto.input if n]
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(proto, opsets={"": node.opset})
            found = evaluator.run(None, dict(zip(names, arrays, strict=True)))
    except Exception as error:  # whatever the evaluator makes of a hostile node
        raise ModelError(
            f"ONNX {node.kind} of constants cannot be computed",
            f"{type(error).__name__}",
            "simplify the model before exporting it",
            node.name,
        ) from error
    out: list[Value] = []
    for array in found:
        array = np.asarray(array)
        if array.size > MAX_ELEMENTS or array.ndim > 8:
            node.refuse(f"a constant result of shape {list(array.shape)}")
        if array.dtype in (np.float64, np.float16):
            array = array.astype(np.float32)
        out.append(Known(array))
    return out


def _bound(node: Operator, arrays: list[Array]) -> None:
    """Refuse results that would take much memory or time."""
    shapes = [a.shape for a in arrays]
    if node.kind in ("ConstantOfShape", "Expand"):
        shapes = [tuple(max(int(v), 1) for v in arrays[-1].reshape(-1)[:64]), *shapes[:-1]]
        size = _broadcast(shapes)
    elif node.kind == "Range":
        start, limit, delta = (float(a.reshape(-1)[0]) for a in arrays[:3])
        size = abs(limit - start) / abs(delta) if delta else float("inf")
    elif node.kind == "Gather":
        size = float(arrays[0].size) * arrays[-1].size
    elif _broadcast(shapes) <= MAX_ELEMENTS:
        return
    else:
        size = float("inf")
    if not size <= _SMALL:
        node.refuse("a constant result of so many elements")


def _broadcast(shapes: list[tuple[int, ...]]) -> float:
    """Return the elements that arrays broadcast to; their sum where they do not broadcast."""
    try:
        return float(np.prod(np.broadcast_shapes(*shapes), dtype=np.float64))
    except ValueError:
        return float(sum(np.prod(s, dtype=np.float64) for s in shapes))
