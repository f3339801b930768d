"""Turn an integer Graph into the bytes of a .tflite file that LiteRT and others run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinydeploy.errors import ModelError
from tinydeploy.export.flatbuffer import Builder
from tinydeploy.ir import Graph, Node
from tinydeploy.ops import Call, op_named
from tinydeploy.ops import _pool as pool
from tinydeploy.ops._window import Window


def to_bytes(graph: Graph) -> bytes:
    """Return a graph as a .tflite file with the same integer inputs and outputs.

    Explicit padding becomes a PAD. Raises ModelError for what the format cannot say: padding of a
    pool, and tables that passes made.
    """
    builder = Builder()
    written: dict[int, int] = {}

    def tensor(index: int | None) -> int:
        if index is None:
            return -1
        if index not in written:
            t = graph.tensors[index]
            q = t.quantization
            written[index] = builder.tensor(
                t.shape, t.dtype.value,
                q.scales if q else None, q.zero_points if q else 0,
                axis=q.axis if q and q.per_channel else 0, data=t.data, name=t.name,
            )  # fmt: skip
        return written[index]

    for i in graph.inputs:
        tensor(i)
    for node in graph.nodes:
        call, op = Call(graph, node), op_named(node.op)
        if node.op == "QUANTIZE" and node.attributes is not None:
            raise ModelError("a fused table cannot be stored in a .tflite", where=node.name)
        # What attributes say again is left out: axes, sizes and the like.
        given = [i for k, i in enumerate(node.inputs) if k in op.inputs(call) or _weighted(node)]
        inputs = [tensor(i) for i in given]
        window = node.attributes
        if isinstance(window, Window) and window.pad_top is not None:
            inputs[0] = _padded(builder, call, inputs[0])
            bare = replace(window, pad_top=None, padding="VALID")
            call = Call(graph, replace(node, attributes=bare))
        if isinstance(window, pool.Attributes) and window.window.pad_top is not None:
            if (_edges(window.window)) != (0, 0, 0, 0):
                raise ModelError("a pool with explicit padding cannot be stored", where=node.name)
            bare = replace(window.window, pad_top=None, padding="VALID")
            call = Call(graph, replace(node, attributes=replace(window, window=bare)))
        options, constants = op.stored(call)
        inputs += [builder.constant(c, c.dtype.name) for c in constants]
        builder.operator(node.op, inputs, [tensor(o) for o in node.outputs], **options)
    return builder.build([tensor(i) for i in graph.inputs], [tensor(o) for o in graph.outputs])


def _weighted(node: Node) -> bool:
    return node.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _edges(window: Window) -> tuple[int, int, int, int]:
    return window.pad_top or 0, window.pad_bottom, window.pad_left, window.pad_right


def _padded(builder: Builder, call: Call, source: int) -> int:
    """Add a PAD before a convolution and return its output."""
    top, bottom, left, right = _edges(call.attributes)
    image = call.input()
    _, height, width, channels = image.shape
    out = builder.tensor(
        (1, height + top + bottom, width + left + right, channels),
        image.dtype.value, image.scale, image.zero_point, name=f"{image.name}_padded",
    )  # fmt: skip
    edges = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    builder.operator("PAD", [source, builder.constant(edges)], out)
    return out
