"""Share what functions of one int8 value have in common: an exact 256-entry table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ir import DType, Quantization
from tinydeploy.numerics.fixedpoint import rounded_away
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.base import (
    Array,
    Call,
    Check,
    Op,
    RowSource,
    Stored,
    fused_activation,
    portable_bytes,
)
from tinydeploy.ops.checks import int8_in_out


@dataclass(frozen=True, slots=True)
class Params:
    """Mirror td_lookup_params."""

    row_bytes: int
    table: Array  # int8 [256], indexed by the stored value + 128


def stored_values() -> Array:
    """All int8 values in the order of a table."""
    return np.arange(-128, 128, dtype=np.int64)


def region(call: Call) -> tuple[RowSource, ...]:
    return (RowSource(),)


def in_place(call: Call, position: int) -> bool:
    return True


def real_values(call: Call) -> Array:
    """Return what the input's stored values mean, float32 in the order of a table."""
    inp = call.input()
    return np.float32(inp.scale) * (stored_values() - inp.zero_point).astype(np.float32)


def float_table(call: Call, function: Callable[[Array], Array]) -> Array:
    """Return the int8 table of a function of float32 arrays, as LiteRT fills it.

    TensorFlow Lite, kernels/internal/common.h, LUTPopulate: multiply by the reciprocal of the
    output's scale, round half away from zero, add the zero point, clamp. Infinities saturate and
    NaN is the least value, where LiteRT's cast to an integer is undefined.
    """
    with np.errstate(all="ignore"):
        scaled = function(real_values(call)) * (np.float32(1) / np.float32(call.output.scale))
    return _stored(scaled.astype(np.float64), call.output.zero_point)


def exact_table(call: Call, function: Callable[[Array], Array]) -> Array:
    """Return the int8 table of a real function: float64, one rounding, half away from zero.

    For operators that LiteRT has no int8 kernel for.
    """
    inp, out = call.input(), call.output
    with np.errstate(all="ignore"):
        real = float(inp.scale) * (stored_values() - inp.zero_point).astype(np.float64)
        return _stored(function(real) / float(out.scale), out.zero_point)


def _stored(scaled: Array, zero_point: int) -> Array:
    rounded = np.nan_to_num(rounded_away(scaled), nan=-np.inf)
    table: Array = np.clip(rounded + zero_point, -128, 127)
    return table.astype(np.int8)


def rounded_once(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return a function that is computed in float64 and rounded once to its argument's type.

    A host's float32 functions may differ in the last bit between libraries.
    """
    return lambda x: function(x.astype(np.float64)).astype(x.dtype)


def ratio(call: Call) -> float:
    """Return the input's scale over the output's as LiteRT divides them, in float32."""
    return float(np.float32(call.input().scale) / np.float32(call.output.scale))


def ratio_in_range(call: Call) -> str | None:
    """The input's scale over the output's is below 2^30."""
    found = float(call.input().scale) / float(call.output.scale)
    return None if found < 2**29 else f"it is {found:.3g}"


def make(
    name: str,
    summary: str,
    table: Callable[[Call, IntegerProfile], Array],
    function: Callable[[Call], Callable[[Array], Array]],
    *,
    parse: Callable[[Any], Any] = lambda reader: None,
    checks: tuple[Check, ...] = (),
    stored: Callable[[Call], Stored] = fused_activation,
    fixed_output: Mapping[DType, Quantization] | None = None,
) -> Op:
    """Return the operator that applies a function to each element.

    table: int8 [256], the result for each stored value.
    function: what it computes on floats, given the node.
    """

    def reference(call: Call, values: list[Array], profile: IntegerProfile) -> list[Array]:
        """Look the result of each value up."""
        return [table(call, profile)[values[0].astype(np.int64) + 128]]

    def float_reference(call: Call, values: list[Array]) -> list[Array]:
        with np.errstate(all="ignore"):
            return [function(call)(values[0]).astype(np.float32)]

    return Op(
        name=name,
        summary=summary,
        parse=parse,
        checks=(int8_in_out, *checks),
        shape=lambda call: [call.input().shape],
        reference=reference,
        float_reference=float_reference,
        params=lambda call, profile: Params(call.input().row_bytes, table(call, profile)),
        region=region,
        columns=region,
        in_place=in_place,
        pointwise=True,
        kernels=portable_bytes("lookup"),
        stored=stored,
        fixed_output=fixed_output or {},
    )
