"""Offer portable C kernels that keep weights of 2 or 4 bits packed in flash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.numerics.fixedpoint import wrap32
from tinydeploy.ops import _convolution as convolution
from tinydeploy.ops import _window as window
from tinydeploy.ops._weights import pack, storage_bytes, weight_bits
from tinydeploy.ops.base import Array, Kernel, Site

# Machine code of the kernels at -Os, the larger of Thumb-2 and RV32 (GCC 12), in bytes: where size
# is the goal, packing must save more.
CODE_BYTES = {"CONV_2D": 1412, "DEPTHWISE_CONV_2D": 596, "FULLY_CONNECTED": 808}


@dataclass(frozen=True, slots=True)
class ConvParams(convolution.ConvParams):
    """Mirror the parameters of conv_2d_packed.c.j2; weights are int8 [out_c, pitch]."""

    run: int
    pitch: int


@dataclass(frozen=True, slots=True)
class DepthwiseParams(convolution.DepthwiseParams):
    """Mirror the parameters of depthwise_conv_2d_packed.c.j2; weights are int8 [taps, pitch]."""

    pitch: int


@dataclass(frozen=True, slots=True)
class DenseParams:
    """Mirror the parameters of fully_connected_packed.c.j2."""

    batches: int
    in_c: int
    out_c: int
    out_offset: int
    clamp_min: int
    clamp_max: int
    single_rounding: int
    pitch: int
    weights: Array  # int8 [out_c, pitch]
    bias: Array
    multiplier: Array
    shift: Array


def bits_of(site: Site) -> int:
    """Return the bits that each weight of a node needs."""
    weights = site.call.input(1).data
    assert weights is not None
    return weight_bits(weights)


def accepts(site: Site) -> bool:
    """Take sub-byte weights wherever they should not be widened in flash."""
    if site.optimize == "speed" or not site.call.input(1).elements or bits_of(site) == 8:
        return False
    return site.optimize != "size" or _saved(site) > CODE_BYTES[site.call.node.op]


def _saved(site: Site) -> int:
    """Return the bytes that packing saves in all nodes that would share a node's kernel."""
    graph, op, bits = site.call.graph, site.call.node.op, bits_of(site)
    tensors = {i: graph.tensors[i] for n in graph.nodes if n.op == op for i in n.inputs[1:2] if i}
    packed = (t for t in tensors.values() if t.data is not None and weight_bits(t.data) == bits)
    return sum(t.elements - storage_bytes(t.elements, bits) for t in packed)


def lines(matrix: Array, bits: int) -> Array:
    """Return the rows of a matrix packed, each from a byte of its own on: int8 [rows, bytes]."""
    return np.stack([pack(row, bits) for row in matrix]).view(np.int8)


def conv_params(site: Site) -> ConvParams:
    return conv_fields(site, lambda matrix: lines(matrix, bits_of(site)))


def conv_fields(site: Site, packed: Callable[[Array], Array]) -> ConvParams:
    """Return the parameters; `packed` turns rows of weights into bytes."""
    p = convolution.conv_params(site.call, site.profile)
    matrix = p.weights.reshape(p.out_c, -1)
    weights, bias = packed(matrix), _folded(p.bias, p.in_offset, matrix)
    run = p.kernel_w if p.dilation_w == 1 and p.groups == 1 else 1
    if window.is_one_row(site):
        pixels = site.call.output.elements // p.out_c
        p = replace(p, in_w=pixels, out_w=pixels)
    p = replace(p, weights=weights, bias=bias)
    return convolution.extended(ConvParams, p, run, weights.shape[1])


def depthwise_params(site: Site) -> DepthwiseParams:
    return depthwise_fields(site, lambda matrix: lines(matrix, bits_of(site)))


def depthwise_fields(site: Site, packed: Callable[[Array], Array]) -> DepthwiseParams:
    """Return the parameters; `packed` turns rows of weights into bytes."""
    p = convolution.depthwise_params(site.call, site.profile)
    weights = packed(p.weights.reshape(p.kernel_h * p.kernel_w, -1))
    p = replace(p, weights=weights)
    return convolution.extended(DepthwiseParams, p, weights.shape[1])


def dense_params(site: Site) -> DenseParams:
    return dense_fields(site, lambda matrix: lines(matrix, bits_of(site)))


def dense_fields(site: Site, packed: Callable[[Array], Array]) -> DenseParams:
    """Return the parameters; `packed` turns rows of weights into bytes."""
    from tinydeploy.ops.fully_connected import params

    p = params(site.call, site.profile)
    weights = packed(p.weights)
    return DenseParams(
        p.batches, p.in_c, p.out_c, p.out_offset, p.clamp_min, p.clamp_max, p.single_rounding,
        weights.shape[1], weights, _folded(p.bias, p.in_offset, p.weights), p.multiplier, p.shift,
    )  # fmt: skip


def _folded(bias: Array, offset: int, matrix: Array) -> Array:
    """Return the bias with what the input's zero point adds to every sum, modulo 2^32."""
    return wrap32(bias + offset * matrix.astype(np.int64).sum(axis=1)).astype(np.int32)


def _constants(site: Site) -> dict[str, int]:
    return {"bits": bits_of(site), "book": 0}


PACKED = {
    "CONV_2D": (
        Kernel(
            "conv_2d_packed", "td_conv_2d_packed", accepts, conv_params, _constants,
            whole=window.is_one_row, by_rows=True,
        ),
    ),
    "DEPTHWISE_CONV_2D": (
        Kernel(
            "depthwise_conv_2d_packed", "td_depthwise_conv_2d_packed", accepts, depthwise_params,
            _constants, by_rows=True,
        ),
    ),
    "FULLY_CONNECTED": (
        Kernel(
            "fully_connected_packed", "td_fully_connected_packed", accepts, dense_params,
            _constants,
        ),
    ),
}  # fmt: skip
