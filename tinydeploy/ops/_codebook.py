"""Offer portable C kernels for weights that are at most 16 int8 values: four bits index each.

They are the kernels for packed weights of 4 bits, but for what a field means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinydeploy.ops import _packed as packed
from tinydeploy.ops import _window as window
from tinydeploy.ops._convolution import extended
from tinydeploy.ops._weights import codebook, storage_bytes
from tinydeploy.ops.base import Array, Kernel, Site, once_per_site


@dataclass(frozen=True, slots=True)
class ConvParams(packed.ConvParams):
    """Mirror the parameters of conv_2d_packed.c.j2 with a book."""

    book: Array


@dataclass(frozen=True, slots=True)
class DepthwiseParams(packed.DepthwiseParams):
    """Mirror the parameters of depthwise_conv_2d_packed.c.j2 with a book."""

    book: Array


@dataclass(frozen=True, slots=True)
class DenseParams(packed.DenseParams):
    """Mirror the parameters of fully_connected_packed.c.j2 with a book."""

    book: Array


@once_per_site
def book_of(site: Site) -> Array | None:
    """Return the values that a node's weights are among, None if there are more than 16."""
    weights = site.call.input(1).data
    assert weights is not None
    return codebook(weights)


@once_per_site
def accepts(site: Site) -> bool:
    """Take weights with a codebook where flash is all that counts, or nothing is faster.

    Kernels of the instruction sets take the same weights as int8 in a tenth of the time.
    """
    fast = site.optimize == "speed" or (site.optimize == "balanced" and site.isa != "")
    if fast or book_of(site) is None:
        return False
    return site.optimize != "size" or _saved(site) > packed.CODE_BYTES[site.call.node.op]


def _saved(site: Site) -> int:
    """Return the bytes that codebooks save in all nodes that would share a node's kernel."""
    graph, op = site.call.graph, site.call.node.op
    tensors = {i: graph.tensors[i] for n in graph.nodes if n.op == op for i in n.inputs[1:2] if i}
    coded = (t for t in tensors.values() if t.data is not None and codebook(t.data) is not None)
    return sum(t.elements - storage_bytes(t.elements, 4) - 16 for t in coded)


def indices(matrix: Array, book: Array) -> Array:
    """Return which entry of the book each weight is, as the fields of 4 bits hold it: -8..7."""
    found = np.searchsorted(book, matrix)
    return np.asarray(np.where(found < 8, found, found - 16), np.int8)


def _params(kind: type[Any], plain: Callable[[Site, Any], Any]) -> Callable[[Site], Any]:
    def params(site: Site) -> Any:
        book = book_of(site)
        assert book is not None
        held = plain(site, lambda matrix: packed.lines(indices(matrix, book), 4))
        return extended(kind, held, book)

    return params


def _constants(site: Site) -> dict[str, int]:
    return {"bits": 4, "book": 1}


_CODED = {
    "CONV_2D": (
        Kernel(
            "conv_2d_packed", "td_conv_2d_codebook", accepts,
            _params(ConvParams, packed.conv_fields), _constants,
            whole=window.is_one_row, by_rows=True,
        ),
    ),
    "DEPTHWISE_CONV_2D": (
        Kernel(
            "depthwise_conv_2d_packed", "td_depthwise_conv_2d_codebook", accepts,
            _params(DepthwiseParams, packed.depthwise_fields), _constants, by_rows=True,
        ),
    ),
    "FULLY_CONNECTED": (
        Kernel(
            "fully_connected_packed", "td_fully_connected_codebook", accepts,
            _params(DenseParams, packed.dense_fields), _constants,
        ),
    ),
}  # fmt: skip

# All portable kernels that keep weights packed.
PACKED = {op: (*packed.PACKED[op], *kernels) for op, kernels in _CODED.items()}
