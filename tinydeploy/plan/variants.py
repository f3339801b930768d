"""Turn a Graph into one like it with a smaller kernel, a larger stride or fewer channels.

Only shapes matter here: constants are cropped, or repeated where they must grow. What comes out
can be planned but computes nothing useful before it is trained (MCUNetV2, "network
redistribution": less receptive field where memory is short).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError
from tinydeploy.ir import Graph, Node, Quantization, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.ir.verify import verify_graph
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._pool import Attributes as Pool
from tinydeploy.ops._window import Window, convolution
from tinydeploy.ops.checks import run_checks
from tinydeploy.ops.reshape import Attributes as Reshape

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SMALL = 3
# Operators whose output's channels are no function of its input's channels one by one.
_MIXING = ("CONV_2D", "FULLY_CONNECTED", "RESHAPE", "TRANSPOSE", "CONCATENATION", "STRIDED_SLICE")

Kind = Literal["kernel", "stride", "width"]


@dataclass(frozen=True, slots=True)
class Change:
    """Describe one change of one node, for people (before, after) and for `apply`.

    sizes: kernel rows and columns; stride: rows and columns; channels: per tensor.
    """

    node: int
    kind: Kind
    before: str
    after: str
    sizes: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    channels: Mapping[int, int] = field(default_factory=dict)


class UnfitError(ValueError):
    """Say that a change leads to no valid network."""


def changes(graph: Graph, nodes: tuple[int, ...], tensors: frozenset[int]) -> Iterator[Change]:
    """Yield what could be tried: at convolutions among `nodes`, and on the width of `tensors`."""
    for p in nodes:
        if graph.nodes[p].op not in _CONVOLUTIONS:
            continue
        g = convolution(Call(graph, graph.nodes[p]))
        if max(g.kernel_h, g.kernel_w) > _SMALL:
            h, w = min(g.kernel_h, _SMALL), min(g.kernel_w, _SMALL)
            yield Change(p, "kernel", f"{g.kernel_h}x{g.kernel_w}", f"{h}x{w}", sizes=(h, w))
    for group in _width_groups(graph):
        first = min((p for p, n in enumerate(graph.nodes) if n.outputs[0] in group), default=0)
        count = graph.tensors[graph.nodes[first].outputs[0]].shape[-1]
        if group & tensors and count > 1:
            fewer = count - max(1, count // 4)
            yield Change(
                first, "width", f"{count} channels", f"{fewer}",
                channels=dict.fromkeys(sorted(group), fewer),
            )  # fmt: skip
    for p in nodes:
        if graph.nodes[p].op not in _CONVOLUTIONS:
            continue
        g = convolution(Call(graph, graph.nodes[p]))
        if g.stride_h <= 2 and g.stride_w <= 2 and g.out_h > 1 and g.out_w > 1:
            h, w = 2 * g.stride_h, 2 * g.stride_w
            yield Change(
                p, "stride", f"stride {g.stride_h}x{g.stride_w}", f"{h}x{w}", stride=(h, w)
            )


def _width_groups(graph: Graph) -> list[frozenset[int]]:
    """Return the sets of tensors that must keep one width and begin at dense convolutions."""
    parent = list(range(len(graph.tensors)))

    def root(t: int) -> int:
        while parent[t] != t:
            parent[t] = t = parent[parent[t]]
        return t

    fixed = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        out = node.outputs[0]
        if node.op in _MIXING:
            if node.op != "CONV_2D":
                fixed.update(node.outputs)
            elif convolved_groups(Call(graph, node)) > 1:
                fixed.update({out, node.inputs[0] or 0})
            continue
        for i in graph.activation_inputs(node):
            same = graph.tensors[i].shape[-1:] == graph.tensors[out].shape[-1:]
            if same:
                parent[root(i)] = root(out)
            else:
                fixed.update({i, out})
    groups: dict[int, set[int]] = {}
    for t in range(len(graph.tensors)):
        if not graph.tensors[t].constant:
            groups.setdefault(root(t), set()).add(t)
    made = {o for n in graph.nodes for o in n.outputs}
    return [frozenset(g) for g in groups.values() if g <= made and not g & fixed]


def convolved_groups(call: Call) -> int:
    """Return into how many groups a convolution divides its channels."""
    return call.input().shape[3] // call.input(1).shape[3]


def apply(graph: Graph, change: Change) -> Graph:
    """Return the graph with a change made and all shapes after it followed up.

    Raises UnfitError when no valid network comes out, such as a sum of different sizes.
    """
    tensors = list(graph.tensors)
    nodes: list[Node] = []
    for p, old in enumerate(graph.nodes):
        before = Call(graph, old)
        node = _with_windows(before, change) if p == change.node else old
        node = _with_constants(graph, tensors, before, node, change)
        try:
            shapes = op_named(node.op).shape(Call(graph.replace(tensors=tuple(tensors)), node))
            for o, shape in zip(node.outputs, shapes, strict=True):
                if any(s < 1 for s in shape):
                    raise UnfitError(f"node {p} {node.op} would have no output")
                tensors[o] = replace(tensors[o], shape=tuple(map(int, shape)))
            run_checks(op_named(node.op), Call(graph.replace(tensors=tuple(tensors)), node))
        except (ModelError, ValueError, IndexError, AssertionError) as error:
            raise UnfitError(f"node {p} {node.op}: {error}") from error
        nodes.append(node)
    changed = graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))
    for o in graph.outputs:
        if changed.tensors[o].shape[-1:] != graph.tensors[o].shape[-1:]:
            raise UnfitError("the network's output would have another width")
    verify_graph(changed)
    return changed


def _with_windows(before: Call, change: Change) -> Node:
    """Return the changed node with its new stride, and padding that fits its new kernel."""
    node = before.node
    if change.stride:
        h, w = change.stride
        return replace(node, attributes=replace(node.attributes, stride_h=h, stride_w=w))
    window = node.attributes
    if change.sizes and isinstance(window, Window) and window.pad_top is not None:
        g = convolution(before)
        less_h = (g.kernel_h - change.sizes[0]) * g.dilation_h
        less_w = (g.kernel_w - change.sizes[1]) * g.dilation_w
        window = replace(
            window,
            pad_top=max(0, window.pad_top - less_h // 2),
            pad_bottom=max(0, window.pad_bottom - (less_h - less_h // 2)),
            pad_left=max(0, window.pad_left - less_w // 2),
            pad_right=max(0, window.pad_right - (less_w - less_w // 2)),
        )
    return replace(node, attributes=window)


def _with_constants(
    graph: Graph, tensors: list[Tensor], before: Call, node: Node, change: Change
) -> Node:
    """Return a node whose constants and attributes fit its inputs; new constants are appended."""
    source = tensors[node.inputs[0] or 0].shape
    out = node.outputs[0]
    width = change.channels.get(out, before.output.shape[-1] if before.output.shape else 1)
    if node.op in _CONVOLUTIONS:
        weights = before.input(1).shape
        here = before.node is graph.nodes[change.node]
        h, w = change.sizes if change.sizes and here else weights[1:3]
        if node.op == "CONV_2D":
            if convolved_groups(before) > 1 and source[3] != before.input().shape[3]:
                raise UnfitError("a grouped convolution would have other channels")
            depth = source[3] // convolved_groups(before)
            return _weighted(tensors, node, (width, h, w, depth), 0)
        multiplier = weights[3] // before.input().shape[3]
        return _weighted(tensors, node, (1, h, w, source[3] * multiplier), 3)
    if node.op == "FULLY_CONNECTED":
        units, depth = before.input(1).shape
        vectors = before.input().elements // depth
        return _weighted(tensors, node, (units, int(np.prod(source)) // vectors), 0)
    if node.op == "RESHAPE":
        return replace(node, attributes=Reshape(_reshaped(before, source)))
    if isinstance(node.attributes, Pool):
        return replace(node, attributes=_pool(node.attributes, before.input().shape, source))
    return _broadcast(graph, tensors, before, node)


def _weighted(tensors: list[Tensor], node: Node, shape: tuple[int, ...], axis: int) -> Node:
    """Return a node with weights of a shape, and bias and scales to match."""
    index = node.inputs[1]
    assert index is not None
    if tensors[index].shape == shape:
        return node
    inputs = list(node.inputs)
    inputs[1] = _append(tensors, tensors[index], shape, axis)
    if len(inputs) > 2 and inputs[2] is not None:
        inputs[2] = _append(tensors, tensors[inputs[2]], (shape[axis],), 0)
    return replace(node, inputs=tuple(inputs))


def _append(tensors: list[Tensor], old: Tensor, shape: tuple[int, ...], axis: int) -> int:
    """Append a constant of another shape, cropped at its centre or repeated; return its index."""
    data: NDArray[Any] = np.asarray(old.data)
    for k, size in enumerate(shape):
        first = max(0, data.shape[k] - size) // 2
        data = np.take(data, np.arange(first, first + size) % data.shape[k], axis=k)
    q = old.quantization
    if q is not None and q.per_channel:
        first = max(0, len(q.scales) - shape[axis]) // 2
        kept = [(first + k) % len(q.scales) for k in range(shape[axis])]
        scales = tuple(q.scales[k] for k in kept)
        points = q.zero_points if len(q.zero_points) == 1 else (0,) * len(scales)
        q = Quantization(scales, points, q.axis)
    tensors.append(replace(old, shape=shape, quantization=q, data=constant(data)))
    return len(tensors) - 1


def _reshaped(before: Call, source: tuple[int, ...]) -> tuple[int, ...]:
    """Return the new shape of a view: axes that were the input's follow it, one takes the rest."""
    old, wanted = before.input().shape, before.output.shape
    if source == old:
        return tuple(wanted)
    total = int(np.prod(source))
    if old[-1:] == wanted[-1:]:
        rest = total // source[-1]
        for k in range(len(wanted) - 1):
            others = int(np.prod(wanted[:-1])) // wanted[k]
            if wanted[k] > 1 and rest % others == 0:
                return (*wanted[:k], rest // others, *wanted[k + 1 : -1], source[-1])
        if rest == int(np.prod(wanted[:-1])):
            return (*wanted[:-1], source[-1])
    others = int(np.prod(wanted[:-1]))
    if total % others:
        raise UnfitError(f"{list(source)} has no shape like {list(wanted)}")
    return (*wanted[:-1], total // others)


def _pool(pool: Pool, old: tuple[int, ...], new: tuple[int, ...]) -> Pool:
    """Return a pool of the new image: one that covered all of the old one covers all of it."""
    window, sizes = pool.window, [pool.kernel_h, pool.kernel_w]
    strides = [window.stride_h, window.stride_w]
    for k in range(2):
        if sizes[k] == old[k + 1]:
            strides[k] = new[k + 1] if strides[k] == sizes[k] else strides[k]
            sizes[k] = new[k + 1]
    return Pool(replace(window, stride_h=strides[0], stride_w=strides[1]), sizes[0], sizes[1])


def _broadcast(graph: Graph, tensors: list[Tensor], before: Call, node: Node) -> Node:
    """Return an element-wise node whose constant operand has the size of the other one."""
    positions = op_named(node.op).inputs(before)
    moving = [node.inputs[k] for k in positions if not before.input(k).constant]
    if len(positions) != 2 or len(moving) != 1 or moving[0] is None:
        return node
    old, new = graph.tensors[moving[0]].shape, tensors[moving[0]].shape
    if old == new:
        return node
    inputs = list(node.inputs)
    for k in positions:
        tensor = before.input(k)
        if tensor.constant:
            ends = zip(tensor.shape, old[-len(tensor.shape) :] if tensor.shape else (),
                       new[-len(tensor.shape) :] if tensor.shape else (), strict=True)  # fmt: skip
            shape = tuple(n if s == o else s for s, o, n in ends)
            inputs[k] = _append(tensors, tensor, shape, len(shape) - 1)
    return replace(node, inputs=tuple(inputs))
