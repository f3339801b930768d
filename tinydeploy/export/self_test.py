"""Turn a network into what its example checks: inputs known to both sides, a digest of outputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.ops.execute import run_outputs

SAMPLES = 4  # one random input alone often ends in the same extreme value whatever the weights


def known_bytes(sample: int, slot: int, count: int) -> NDArray[np.int8]:
    """Return the first bytes of an input; templates/export/self_test.c.j2 is its twin.

    A multiply and shift of the byte's number, with two primes of xxHash: any byte by itself, so
    that rows may be asked for in any order.
    """
    x = np.arange(1, count + 1, dtype=np.uint64) * 0x9E3779B1
    x += (sample << 16 | slot) * 0x85EBCA77
    x &= 0xFFFFFFFF
    x ^= x >> np.uint64(15)
    x *= np.uint64(0x85EBCA77)
    x &= 0xFFFFFFFF
    x ^= x >> np.uint64(13)
    return ((x >> np.uint64(24)).astype(np.int16) - 128).astype(np.int8)


def digest(chunks: Iterable[bytes]) -> int:
    """Return FNV-1a of 32 bits (Fowler, Noll and Vo) over bytes."""
    found = 2166136261
    for byte in b"".join(chunks):
        found = (found ^ byte) * 16777619 & 0xFFFFFFFF
    return found


def expected_digest(graph: Graph, profile: IntegerProfile) -> int:
    """Return the digest of the outputs for the known inputs, as the integer reference has them.

    Values are little-endian in memory, as on every core that the C is generated for.
    """
    chunks = []
    for sample in range(SAMPLES):
        inputs = []
        for index in graph.inputs:
            tensor = graph.tensors[index]
            stored = known_bytes(sample, graph.inputs.index(index), tensor.bytes)
            array = stored.view(tensor.dtype.numpy.newbyteorder("<")).reshape(tensor.shape)
            inputs.append(array.astype(tensor.dtype.numpy))
        for output in run_outputs(graph, inputs, profile):
            chunks.append(output.astype(output.dtype.newbyteorder("<")).tobytes())
    return digest(chunks)
