"""Turn SHAPE, STRIDED_SLICE and PACK of known shapes into constants.

TensorFlow's converter writes them where a model with a dynamic batch reshapes; the batch is 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import DType
from tinydeploy.ops import op_named

FOLDED = frozenset(("SHAPE", "PACK"))
_INTEGERS = (DType.INT32, DType.INT64)


def folded(name: str, reader: Any) -> NDArray[Any] | None:
    """Return what an operator on shapes computes, None if it is none or depends on the input.

    `reader` is an importers.tflite.OperatorReader.
    """
    kind = reader.outputs[0].dtype
    if kind not in _INTEGERS:
        return None
    if name == "SHAPE":
        found = np.array(reader.shape(0))
    elif name == "PACK":
        parts = [
            reader.constant(k, "sizes") for k in range(len(reader.inputs)) if reader.has_constant(k)
        ]
        if len(parts) < len(reader.inputs) or any(p.size != 1 for p in parts):
            return None
        found = np.concatenate([p.reshape(1) for p in parts])
    elif name == "STRIDED_SLICE" and reader.has_constant(0):
        a = op_named(name).parse(reader)
        whole = reader.constant(0, "sizes")
        taken = [b + s * np.arange(c) for b, s, c in zip(a.begin, a.stride, a.count, strict=True)]
        kept = [c for axis, c in enumerate(a.count) if axis not in a.dropped]
        found = whole[np.ix_(*taken)].reshape(kept)
    else:
        return None
    return found.astype(kind.numpy)
