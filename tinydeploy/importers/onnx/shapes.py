"""Turn ONNX operators that move, cut and join values into ours, or into nothing."""

from __future__ import annotations

import math

import numpy as np

from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import (
    Computed,
    Known,
    Value,
    reshaped,
    stored_in,
    transposed,
)
from tinydeploy.ops.concatenation import Attributes as Joined
from tinydeploy.ops.pad import Attributes as Pads
from tinydeploy.ops.strided_slice import Attributes as Cut


def shape_of(b: Builder, node: Operator) -> list[Value]:
    """Shape: known before the network runs."""
    shape = node.input().shape
    start, end = (int(node.attributes.get(k, d)) for k, d in (("start", 0), ("end", len(shape))))
    return [Known(np.array(shape[start:end], np.int64))]


def transpose(b: Builder, node: Operator) -> list[Value]:
    """Transpose: nothing moves until an operator asks for another order."""
    x = node.computed()
    rank = len(x.shape)
    permutation = [int(a) for a in node.attributes.get("perm", range(rank)[::-1])]
    if sorted(permutation) != list(range(rank)):
        node.refuse(f"permutation {permutation} of {rank} axes")
    return [transposed(x, permutation)]


def view(b: Builder, node: Operator, x: Computed, shape: tuple[int, ...]) -> Value:
    """Return a value under another shape; where memory has another order it is moved."""
    if math.prod(shape) != math.prod(x.shape):
        node.refuse(f"shape {list(shape)} for a value of shape {list(x.shape)}")
    found = reshaped(x, shape)
    if found is not None:
        return found
    index = b.reshape(b.arrange(x, tuple(range(len(x.shape)))), shape)
    return stored_in(index, shape, tuple(range(len(shape))))


def reshape(b: Builder, node: Operator) -> list[Value]:
    """Reshape to a known shape; a 0 copies an axis, a -1 takes what is left."""
    x = node.computed()
    wanted = node.integers(1, "a shape") or []
    if not node.attributes.get("allowzero", 0):
        if any(s == 0 and k >= len(x.shape) for k, s in enumerate(wanted)):
            node.refuse(f"shape {wanted} for a value of shape {list(x.shape)}")
        wanted = [x.shape[k] if s == 0 else s for k, s in enumerate(wanted)]
    known = math.prod(s for s in wanted if s != -1)
    if wanted.count(-1) == 1 and known > 0 and math.prod(x.shape) % known == 0:
        wanted = [math.prod(x.shape) // known if s == -1 else s for s in wanted]
    if any(s < 1 for s in wanted):
        node.refuse(f"shape {wanted} for a value of shape {list(x.shape)}")
    return [view(b, node, x, tuple(wanted))]


def flatten(b: Builder, node: Operator) -> list[Value]:
    """Flatten to two axes."""
    x = node.computed()
    rank, axis = len(x.shape), int(node.attributes.get("axis", 1))
    if not -rank <= axis <= rank:
        node.refuse(f"axis {axis} of {rank}")
    axis += rank if axis < 0 else 0
    return [view(b, node, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def _axes(node: Operator, rank: int) -> list[int] | None:
    axes = node.attributes.get("axes")
    if axes is None:
        axes = node.integers(1, "axes")
    return None if axes is None else [node.axis(int(a), rank) for a in axes]


def squeeze(b: Builder, node: Operator) -> list[Value]:
    """Squeeze axes of size 1."""
    x = node.computed()
    axes = _axes(node, len(x.shape))
    gone = {k for k, s in enumerate(x.shape) if s == 1} if axes is None else set(axes)
    if any(x.shape[k] != 1 for k in gone):
        node.refuse(f"axes {sorted(gone)} of a value of shape {list(x.shape)}")
    return [Computed(x.index, x.sizes, tuple(a for k, a in enumerate(x.axes) if k not in gone))]


def unsqueeze(b: Builder, node: Operator) -> list[Value]:
    """Unsqueeze: add axes of size 1."""
    x = node.computed()
    count = node.attributes.get("axes") or node.integers(1, "axes") or []
    rank = len(x.shape) + len(count)
    new = {node.axis(int(a), rank) for a in count}
    if len(new) != len(count) or rank > 8:
        node.refuse(f"axes {list(count)}")
    rest = iter(x.axes)
    return [Computed(x.index, x.sizes, tuple(() if k in new else next(rest) for k in range(rank)))]


def concat(b: Builder, node: Operator) -> list[Value]:
    """Concat along one axis, constants among the parts."""
    parts = [node.input(k) for k in range(len(node.inputs))]
    rank = len(parts[0].shape)
    axis = node.axis(int(node.attributes.get("axis", 0)), rank)
    if any(len(p.shape) != rank for p in parts):
        node.refuse("parts of different rank")
    if len(parts) == 1:
        return parts
    leader = max((p for p in parts if isinstance(p, Computed)), key=lambda p: math.prod(p.shape))
    order = b.order(leader)
    indices = [
        b.arrange(p, order)
        if isinstance(p, Computed)
        else b.constant(f"{node.name}_part", p.array.transpose(order))
        for p in parts
    ]
    attributes = Joined(order.index(axis))
    return [b.result(b.emit("CONCATENATION", indices, attributes, node.name), order)]


def pad(b: Builder, node: Operator) -> list[Value]:
    """Pad with zeros."""
    x = node.computed()
    rank = len(x.shape)
    if node.attributes.get("mode", b"constant") != b"constant":
        node.refuse(f"mode {node.attributes['mode'][:40]!r}", "pad with zeros")
    pads = node.attributes.get("pads")
    pads = [int(p) for p in pads] if pads is not None else node.integers(1, "pads") or []
    value = float(node.attributes.get("value", 0.0))
    if node.optional(2) is not None:
        value = float(node.known(2, "a value").array.reshape(-1)[0])
    chosen = node.integers(3, "axes")
    axes = list(range(rank)) if chosen is None else [node.axis(a, rank) for a in chosen]
    if len(pads) != 2 * len(axes) or not all(0 <= p <= 1 << 20 for p in pads):
        node.refuse(f"pads {pads}")
    if not any(pads):
        return [x]
    if value != 0:
        node.refuse(f"a value of {value:g}", "pad with zeros")
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))
    order = b.order(x)
    attributes = Pads(tuple(before.get(a, 0) for a in order), tuple(after.get(a, 0) for a in order))
    return [b.result(b.emit("PAD", (b.arrange(x, order),), attributes, node.name), order)]


def _cut(b: Builder, x: Computed, ranges: dict[int, range], name: str) -> Computed:
    """Return the elements of a value whose indices along some axes are in the given ranges."""
    order = b.order(x)
    taken = [ranges.get(a, range(x.shape[a])) for a in order]
    if all(len(r) == x.shape[a] and r.step == 1 for r, a in zip(taken, order, strict=True)):
        return x
    attributes = Cut(
        tuple(r.start for r in taken), tuple(r.step for r in taken),
        tuple(len(r) for r in taken), (),
    )  # fmt: skip
    return b.result(b.emit("STRIDED_SLICE", (b.arrange(x, order),), attributes, name), order)


def cut(b: Builder, node: Operator) -> list[Value]:
    """Slice with constant bounds."""
    x = node.computed()
    starts, ends = node.integers(1, "starts") or [], node.integers(2, "ends") or []
    axes, steps = node.integers(3, "axes"), node.integers(4, "steps")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        node.refuse(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    ranges = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = node.axis(axis, len(x.shape))
        # Slices of Python clamp the bounds as the ONNX specification does.
        end_or_none = None if step < 0 and end < -x.shape[axis] else end
        found = range(x.shape[axis])[slice(start, end_or_none, step)]
        if not found:
            node.refuse(f"nothing left of axis {axis}")
        ranges[axis] = found
    return [_cut(b, x, ranges, node.name)]


def split(b: Builder, node: Operator) -> list[Value]:
    """Split along one axis into parts of known sizes."""
    x = node.computed()
    axis = node.axis(int(node.attributes.get("axis", 0)), len(x.shape))
    size, count = x.shape[axis], len(node.outputs)
    sizes = node.attributes.get("split") or node.integers(1, "sizes")
    if not sizes:
        each = -(-size // count)
        sizes = [min(each, size - k * each) for k in range(count)]
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 1:
        node.refuse(f"sizes {list(sizes)} of {size}")
    starts = np.cumsum([0, *sizes])
    return [
        _cut(b, x, {axis: range(int(starts[k]), int(starts[k + 1]))}, node.outputs[k])
        for k in range(count)
    ]


def gather(b: Builder, node: Operator) -> list[Value]:
    """Gather one index, or neighbouring ones, along an axis."""
    x = node.computed()
    axis = node.axis(int(node.attributes.get("axis", 0)), len(x.shape))
    indices = node.known(1, "an index").array
    size = x.shape[axis]
    if indices.size == 0 or indices.ndim > 1 or np.any((indices < -size) | (indices >= size)):
        node.refuse(f"indices of shape {list(indices.shape)}")
    wanted = [int(i) % size for i in indices.reshape(-1)]
    step = wanted[1] - wanted[0] if len(wanted) > 1 else 1
    found = range(wanted[0], wanted[-1] + (1 if step > 0 else -1), step or 1)
    if list(found) != wanted:
        node.refuse("indices that are not evenly spaced")
    out = _cut(b, x, {axis: found}, node.name)
    if indices.ndim == 1:
        return [out]
    return [Computed(out.index, out.sizes, out.axes[:axis] + out.axes[axis + 1 :])]


def expand(b: Builder, node: Operator) -> list[Value]:
    """Expand to the shape a value has already."""
    x = node.computed()
    wanted = node.integers(1, "a shape") or []
    if np.broadcast_shapes(x.shape, tuple(wanted)) != x.shape:
        node.refuse(f"shape {wanted} for a value of shape {list(x.shape)}")
    return [x]
