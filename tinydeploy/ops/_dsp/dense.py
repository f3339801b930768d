"""Turn fully connected layers into a vector-times-matrix kernel for SMLAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops._dsp.compact import Compact, compact_form
from tinydeploy.ops._dsp.requant import Requant, bound_of, is_dsp, pair, requant
from tinydeploy.ops.base import Call, Kernel, Site

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror the parameters of dsp/fully_connected.c.j2."""

    batches: int
    in_c: int
    out_c: int
    clamp: int
    clamp_min: int
    clamp_max: int
    groups: int
    skip: int  # groups that the unrolled loop has too many
    base: int  # what the addends of all channels share
    stream: Array
    fours_end: int  # words of the channels up to the last whole four
    stream_end: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """Hold the matrix [units, depth], folded bias, requantisation and form of a layer."""

    matrix: Array
    bias: Array
    requant: Requant
    wide: bool
    single: bool
    batches: int
    clamp: tuple[int, int]

    @property
    def groups(self) -> int:
        """Groups of eight inputs."""
        return -(-int(self.matrix.shape[1]) // 8)

    @property
    def chunk(self) -> int:
        """Groups that the unrolled loop holds."""
        return 8 if self.wide else 4


def _scales(call: Call, profile: IntegerProfile) -> Any:
    """Return the operator's own parameters, which hold its multipliers."""
    from tinydeploy.ops.fully_connected import params

    return params(call, profile)


def _plan(site: Site) -> _Plan | None:
    call = site.call
    if not is_dsp(site) or site.optimize == "size" or call.output.elements == 0:
        return None
    p = _scales(call, site.profile)
    matrix = p.weights.astype(np.int64)
    bias = p.bias + p.in_offset * matrix.sum(axis=1)
    single = bool(p.single_rounding)

    def form(wide: bool) -> Requant | None:
        return requant(matrix, bias, p.multiplier, p.shift, p.out_offset, single, wide)

    how = form(wide=False)
    if how is None:
        return None
    keep = np.where(how.constant, 0, 1)
    wide = site.optimize == "speed" or matrix.min() < -127
    wide = wide or bool(bound_of(matrix * keep[:, None], bias * keep).max() >= 2**23)
    if wide:
        how = form(wide=True)
    if how is None:
        return None
    return _Plan(
        matrix * keep[:, None], bias * keep, how, wide, single, p.batches,
        (p.clamp_min, p.clamp_max),
    )  # fmt: skip


def _stream(plan: _Plan, compact: Compact) -> Array:
    """Pack everything that the inner kernel reads, four channels after four channels."""
    units, depth = plan.matrix.shape
    r = plan.requant
    scale = np.int64(1) << r.scale_log2
    matrix = np.zeros((units, plan.groups * 8), np.int64)
    matrix[:, :depth] = plan.matrix * (scale[:, None] if plan.wide else 1)
    bias = plan.bias * scale if plan.wide else compact.bias
    words: list[Array] = []
    for first in range(0, units, 4):
        # Channels that are missing repeat the last one; nobody reads their results.
        c = np.minimum(np.arange(first, first + 4), units - 1)
        w = matrix[c].reshape(4, -1, 2, 4)
        if plan.wide:
            # Per group of eight: the four channels' words (k0,k2), then (k1,k3), (k4,k6), (k5,k7).
            lanes = pair(w[..., :2], w[..., 2:])
            words += [bias[c], lanes.transpose(1, 2, 3, 0).ravel()]
            words.append(np.stack([r.multiplier[c], r.addend[c]], axis=1).ravel())
            if not r.uniform:
                words.append(r.right[c])
        else:
            h = 256 * w[1::2] + w[::2]
            both = bias[c].copy()
            both[1::2] = 256 * both[1::2] + both[::2]
            lanes = pair(h[..., :2], h[..., 2:])
            words += [both, lanes.transpose(1, 2, 3, 0).ravel(), compact.multiplier[c]]
            shifts = np.where(np.arange(4) % 2, compact.high[c], compact.low[c])
            words.append(np.array([(shifts << np.arange(0, 32, 8)).sum()]))
    return wrap32(np.concatenate(words)).astype(np.int32)


def _accepts(site: Site) -> bool:
    return _plan(site) is not None


def _params(site: Site) -> Params:
    plan = _plan(site)
    assert plan is not None
    units, depth = plan.matrix.shape
    compact = compact_form(plan.requant, plan.bias, site.call.output.zero_point, plan.single)
    stream = _stream(plan, compact)
    whole = stream.size // -(-units // 4) * (units // 4)
    return Params(
        plan.batches, depth, units, int(plan.clamp != (-128, 127)), *plan.clamp,
        plan.groups, -plan.groups % plan.chunk, compact.base, stream, whole, stream.size,
    )  # fmt: skip


def _scratch(site: Site) -> int:
    """The widened vector, and outputs of the last channels."""
    plan = _plan(site)
    assert plan is not None
    return plan.groups * 16 + (4 if plan.matrix.shape[0] % 4 else 0)


def _constants(site: Site) -> dict[str, int]:
    plan = _plan(site)
    assert plan is not None
    general = not plan.requant.uniform
    return {
        "bits": 16 if plan.wide else 8,
        "uniform": plan.requant.uniform,
        "once": int((general or not plan.wide) and plan.single),
        "relu": int(general and not plan.single and site.call.output.zero_point == -128),
    }


FULLY_CONNECTED = (
    Kernel(
        "dsp/fully_connected", "td_fully_connected_dsp", _accepts, _params, _constants, _scratch
    ),
)
