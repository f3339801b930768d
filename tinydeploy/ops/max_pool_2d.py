"""MAX_POOL_2D: take the largest value of each window of an image."""

from __future__ import annotations

import numpy as np

from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops import _pool as pool
from tinydeploy.ops import _window as window
from tinydeploy.ops.base import Array, Call, Op, portable
from tinydeploy.ops.checks import batch_is_one, int8_or_int16, same_quantization


def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
    """Take the maximum, clamp (TFLite reference_integer_ops::MaxPool)."""
    p, g = pool.params(call, profile), pool.geometry(call)
    lowest = call.output.dtype.bounds[0]
    out = window.patches(values[0].astype(np.int64), g, lowest).max(axis=(2, 3))
    return [np.clip(out, p.clamp_min, p.clamp_max).astype(call.output.dtype.numpy)[None]]


def float_reference(call: Call, values: list[Array]) -> list[Array]:
    out = window.patches(values[0], pool.geometry(call), -np.inf).max(axis=(2, 3))
    return [window.activate(out, call.attributes.window.activation)[None]]


OP = Op(
    name="MAX_POOL_2D",
    summary="maximum over windows",
    parse=pool.parse,
    checks=(int8_or_int16, batch_is_one, same_quantization),
    shape=pool.shape,
    reference=reference,
    stored=pool.stored,
    float_reference=float_reference,
    params=pool.params,
    region=lambda call: window.rows_of(pool.geometry(call)),
    columns=lambda call: window.columns_of(pool.geometry(call)),
    narrow=pool.narrow,
    kernels=portable("max_pool_2d"),
)
