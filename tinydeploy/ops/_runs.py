"""Turn weights over int16 activations into the order of kernels that compute four sums at a time.

They take 32-bit sums: only layers whose weights show that no sum needs more (`wide.narrowed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ops import _convolution as convolution
from tinydeploy.ops._dsp.requant import is_dsp
from tinydeploy.ops.base import Array, Kernel, Site, on_int16, once_per_site

# Places of four weights in a word of which SXTB16 takes bytes 0 and 2, rotated bytes 1 and 3.
_DSP_ORDER = (0, 2, 1, 3)


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of runs_16.c.j2."""

    in_w: int
    in_c: int
    out_w: int
    out_c: int
    kernel_h: int
    kernel_w: int
    stride_w: int
    pad_left: int
    clamp_min: int
    clamp_max: int
    row_bytes: int
    weights: Array  # int8 [filters / 4, kernel_h, taps / 4, 4, 4]
    bias: Array  # int32 [out_c]
    multiplier: Array  # int16 or, to be rounded with all bits, int32 [out_c]
    shift: Array  # int8 [out_c]


@dataclass(frozen=True, slots=True)
class DepthwiseParams(convolution.Across):
    """Mirror td_depthwise_16_params."""

    clamp_min: int
    clamp_max: int
    weights: Array  # int8 [kernel_h, kernel_w, in_c]
    bias: Array  # int32 [in_c]
    multiplier: Array  # int16 [in_c]
    shift: Array  # int8 [in_c]


def _own(site: Site) -> Any:
    from tinydeploy.ops import op_named

    return op_named(site.call.node.op).params(site.call, site.profile)


def fours(weights: Array, dsp: bool) -> Array:
    """Return [filters, rows, taps] in fours of filters and taps, filled up with zeros."""
    filters, rows, taps = weights.shape
    padded = np.pad(weights, ((0, -filters % 4), (0, 0), (0, -taps % 4)))
    split = padded.reshape(-(-filters // 4), 4, rows, -(-taps // 4), 4)
    ordered = split.transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(ordered[..., _DSP_ORDER] if dsp else ordered)


@once_per_site
def _narrow(site: Site) -> bool:
    """Accept sums of 32 bits that are scaled down by 4 or more, as td_requantize_narrow does."""
    if not on_int16(site) or site.optimize == "size":
        return False
    p = _own(site)
    return bool(
        p.bias.dtype == np.int32 and (p.multiplier.dtype == np.int32 or p.shift.max() <= -2)
    )


def _accepts(site: Site) -> bool:
    if not _narrow(site):
        return False
    if site.call.node.op == "FULLY_CONNECTED":
        return True
    p = _own(site)
    return bool(p.groups == 1 and p.dilation_w == 1)


def _params(site: Site) -> Params:
    p, dense = _own(site), site.call.node.op == "FULLY_CONNECTED"
    weights = fours(p.weights.reshape(p.out_c, 1 if dense else p.kernel_h, -1), is_dsp(site))
    others = {"row_bytes": weights[0, 0].size, "weights": weights}
    if dense:  # the window of an image of one row, a pixel per batch
        others |= {"in_w": p.batches, "out_w": p.batches, "pad_left": 0}
        others |= {"kernel_h": 1, "kernel_w": 1, "stride_w": 1}
    return convolution.taken(Params, p, **others)


def _constants(site: Site) -> dict[str, int]:
    return {"multiplier": 8 * _own(site).multiplier.dtype.itemsize, "dsp": int(is_dsp(site))}


def _accepts_depthwise(site: Site) -> bool:
    return _narrow(site) and _own(site).depth_multiplier == 1 and _own(site).in_c >= 4


def _depthwise_params(site: Site) -> DepthwiseParams:
    return convolution.taken(DepthwiseParams, _own(site))


RUNS = Kernel("runs_16", "td_runs_16", _accepts, _params, _constants, by_rows=True)
DEPTHWISE = Kernel(
    "depthwise_16", "td_depthwise_16", _accepts_depthwise, _depthwise_params, by_rows=True
)
