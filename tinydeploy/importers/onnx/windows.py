"""Turn ONNX convolutions, pools and resizing into operators over rows of pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.importers.onnx.builder import Builder, Operator
from tinydeploy.importers.onnx.values import Array, Computed, Known, Order, Value
from tinydeploy.ir import Quantization
from tinydeploy.ops import Call, op_named
from tinydeploy.ops._pool import Attributes as Pool
from tinydeploy.ops._window import Window
from tinydeploy.ops.mean import Attributes as Mean
from tinydeploy.ops.pad import Attributes as Pad
from tinydeploy.ops.resize_nearest_neighbor import Attributes as Resize

# Images, and signals as images of height 1; N, C, H, W or N, C, L.
_ORDERS: dict[int, Order] = {4: (0, 2, 3, 1), 3: (0, None, 2, 1)}


def weights_of(
    b: Builder, value: Known, name: str, axis: int, shape: tuple[int, ...], order: tuple[int, ...],
    columns: Array | None = None,
) -> int:  # fmt: skip
    """Return weights with their axes moved, and the last one's elements if `columns` says so.

    Integers with scales along `axis` (of the output channels) or with one scale stay integers.
    """

    def moved(array: Array) -> Array:
        out = array.reshape(shape).transpose(order)
        return out if columns is None else out[..., columns]

    stored = value.stored
    fits = stored is not None and stored.integers.dtype == np.int8
    if stored is not None and fits and (len(stored.scales) == 1 or stored.axis == axis):
        channels = int(np.flatnonzero(np.array(order) == axis)[0])
        q = Quantization(stored.scales, stored.zero_points, channels)
        return b.constant(name, moved(stored.integers), q)
    return b.constant(name, moved(value.array))


def bias_of(b: Builder, value: Known, name: str) -> int:
    """Return a bias: integers with scales if it has such."""
    stored = value.stored
    if stored is not None and stored.integers.dtype == np.int32:
        q = Quantization(stored.scales, stored.zero_points)
        return b.constant(name, stored.integers.reshape(-1), q)
    return b.constant(name, value.array.reshape(-1))


@dataclass(frozen=True, slots=True)
class _Geometry:
    """Hold a window along height and width: kernel, stride, dilation, padding before and after."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @property
    def padded(self) -> bool:
        return any((*self.before, *self.after))


def _pair(node: Operator, name: str, rank: int, low: int) -> tuple[int, int]:
    """Return an attribute of one number per axis; signals have one axis less."""
    values = [int(v) for v in node.attributes.get(name, [1] * (rank - 2))]
    if len(values) != rank - 2 or not all(low <= v <= 1 << 20 for v in values):
        node.refuse(f"{name} {values}")
    return (1, values[0]) if rank == 3 else (values[0], values[1])


def _geometry(node: Operator, shape: tuple[int, ...], kernel: tuple[int, int]) -> _Geometry:
    rank = len(shape)
    stride, dilation = _pair(node, "strides", rank, 1), _pair(node, "dilations", rank, 1)
    sizes = (1, shape[2]) if rank == 3 else (shape[2], shape[3])
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    before, after = [0, 0], [0, 0]
    if automatic in (b"NOTSET", b""):
        pads = [int(v) for v in node.attributes.get("pads", [0] * (2 * (rank - 2)))]
        if len(pads) != 2 * (rank - 2) or not all(0 <= v <= 1 << 20 for v in pads):
            node.refuse(f"pads {pads}")
        before = [0, pads[0]] if rank == 3 else pads[:2]
        after = [0, pads[1]] if rank == 3 else pads[2:]
    elif automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        for axis in range(2):
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            out = -(-sizes[axis] // stride[axis])
            total = max(0, (out - 1) * stride[axis] + reach - sizes[axis])
            small, large = total // 2, total - total // 2
            upper = automatic == b"SAME_UPPER"
            before[axis], after[axis] = (small, large) if upper else (large, small)
    elif automatic != b"VALID":
        node.refuse(f"auto_pad {automatic!r}")
    if node.attributes.get("ceil_mode", 0):
        for axis in range(2):
            # The last window must begin inside the image or the padding before it.
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            room = sizes[axis] + before[axis] + after[axis] - reach
            out = -(-room // stride[axis]) + 1
            if (out - 1) * stride[axis] >= sizes[axis] + before[axis]:
                out -= 1
            extra = (out - 1) * stride[axis] - room
            if extra > 0 and node.attributes.get("count_include_pad", 0):
                node.refuse("ceil_mode and count_include_pad")
            after[axis] += max(0, extra)
    return _Geometry(
        kernel, stride, dilation, (before[0], before[1]), (after[0], after[1])
    )  # fmt: skip


def _window(g: _Geometry, sizes: tuple[int, ...]) -> Window:
    """Return the window, by the names SAME and VALID where they say the same."""
    same = True
    for axis in range(2):
        reach = (g.kernel[axis] - 1) * g.dilation[axis] + 1
        out = -(-sizes[axis] // g.stride[axis])
        total = max(0, (out - 1) * g.stride[axis] + reach - sizes[axis])
        same &= (g.before[axis], g.after[axis]) == (total // 2, total - total // 2)
    plain = Window(*g.stride, *g.dilation, "SAME" if same and g.padded else "VALID", "NONE")
    if same or not g.padded:
        return plain
    return replace(
        plain,
        pad_top=g.before[0],
        pad_left=g.before[1],
        pad_bottom=g.after[0],
        pad_right=g.after[1],
    )


def _image(b: Builder, node: Operator) -> tuple[Computed, Order, int]:
    """Return the first input, its order as an image, and the tensor that holds it so."""
    x = node.computed()
    if len(x.shape) not in _ORDERS:
        node.refuse(f"an input of shape {list(x.shape)}", "1-D and 2-D windows are supported")
    order = _ORDERS[len(x.shape)]
    return x, order, b.arrange(x, order)


def conv(b: Builder, node: Operator) -> list[Value]:
    """Conv: dense, grouped or depthwise, in one or two dimensions."""
    x, order, index = _image(b, node)
    weights = node.known(1, "a filter")
    rank, shape = len(x.shape), weights.shape
    if len(shape) != rank:
        node.refuse(f"filters of shape {list(shape)}")
    filters, per_group = shape[:2]
    groups = int(node.attributes.get("group", 1))
    if groups < 1 or per_group * groups != x.shape[1] or filters % groups:
        node.refuse(f"filters {list(shape)} in {groups} groups over {x.shape[1]} channels")
    kernel = (1, shape[2]) if rank == 3 else (shape[2], shape[3])
    g = _geometry(node, x.shape, kernel)
    depthwise = groups == x.shape[1] and groups > 1
    name = f"{node.name}_weights"
    full = (filters, per_group, *kernel)
    moved = weights_of(b, weights, name, 0, full, (1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    inputs = [index, moved]
    if node.optional(2) is not None:
        bias = node.known(2, "a bias")
        if bias.array.size != filters:
            node.refuse(f"a bias of shape {list(bias.shape)}")
        inputs.append(bias_of(b, bias, f"{node.name}_bias"))
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    sizes = b.tensors[index].shape[1:3]
    return [b.result(b.emit(op, inputs, _window(g, sizes), node.name), order)]


def _pool(b: Builder, node: Operator, op: str) -> list[Value]:
    x, order, index = _image(b, node)
    if len(node.outputs) > 1 and node.outputs[1]:
        node.refuse("the positions of the maxima as an output")
    if "kernel_shape" not in node.attributes:
        node.refuse("no kernel_shape")
    g = _geometry(node, x.shape, _pair(node, "kernel_shape", len(x.shape), 1))
    if g.dilation != (1, 1):
        node.refuse(f"dilations {list(g.dilation)}")
    sizes = b.tensors[index].shape[1:3]
    if op == "AVERAGE_POOL_2D" and g.padded and node.attributes.get("count_include_pad", 0):
        # Padding counts: pad with zeros first, so that it is part of the image.
        pads = Pad((0, *g.before, 0), (0, *g.after, 0))
        index = b.emit("PAD", (index,), pads, f"{node.name}_padded")
        g = replace(g, before=(0, 0), after=(0, 0))
    attributes = Pool(_window(g, sizes), *g.kernel)
    return [b.result(b.emit(op, (index,), attributes, node.name), order)]


def max_pool(b: Builder, node: Operator) -> list[Value]:
    """MaxPool, without the indices of the maxima."""
    return _pool(b, node, "MAX_POOL_2D")


def average_pool(b: Builder, node: Operator) -> list[Value]:
    """AveragePool; where padding counts, it is added first."""
    return _pool(b, node, "AVERAGE_POOL_2D")


def global_average_pool(b: Builder, node: Operator) -> list[Value]:
    """GlobalAveragePool: the mean over height and width."""
    _, order, index = _image(b, node)
    return [b.result(b.emit("MEAN", (index,), Mean((1, 2), True), node.name), order)]


def global_max_pool(b: Builder, node: Operator) -> list[Value]:
    """GlobalMaxPool: one window that holds the whole image."""
    _, order, index = _image(b, node)
    height, width = b.tensors[index].shape[1:3]
    attributes = Pool(Window(1, 1, 1, 1, "VALID", "NONE"), height, width)
    return [b.result(b.emit("MAX_POOL_2D", (index,), attributes, node.name), order)]


def _picked(node: Operator, size: int, wanted: int, scale: float) -> list[int]:
    """Return the index that each output pixel repeats, as the ONNX specification of Resize says."""
    x = np.arange(wanted, dtype=np.float64)
    mode = node.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "asymmetric":
        x = x / scale
    elif mode == "align_corners":
        x = x * (size - 1) / (wanted - 1) if wanted > 1 else x * 0
    elif mode in ("half_pixel", "pytorch_half_pixel"):
        x = (x + 0.5) / scale - 0.5
        if mode == "pytorch_half_pixel" and wanted == 1:
            x = np.zeros(1)
    else:
        node.refuse(f"coordinate_transformation_mode {mode[:40]}")
    rounding = node.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    rounded = {
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }.get(rounding)
    if rounded is None:
        node.refuse(f"nearest_mode {rounding[:40]}")
    return [int(v) for v in np.clip(rounded, 0, size - 1)]


def resize(b: Builder, node: Operator) -> list[Value]:
    """Resize by nearest neighbour, where one of TensorFlow's conventions picks the same pixels."""
    x, order, index = _image(b, node)
    if node.attributes.get("mode", b"nearest") != b"nearest":
        node.refuse(f"mode {node.attributes['mode'][:40]!r}", "use nearest neighbour")
    policy = node.attributes.get("keep_aspect_ratio_policy", b"stretch")
    if "axes" in node.attributes or len(x.shape) != 4 or policy != b"stretch":
        node.refuse("axes, of a signal, or with an aspect ratio to keep")
    sizes = node.integers(3, "sizes")
    scales = [1.0] * 4
    if sizes:
        if len(sizes) != 4:
            node.refuse(f"sizes {sizes}")
        scales = [s / max(1, own) for s, own in zip(sizes, x.shape, strict=True)]
    else:
        given = node.known(2, "scales").array.reshape(-1)
        if given.size != 4 or not np.all((given > 1e-3) & (given < 1e3)):
            node.refuse(f"scales {given.tolist()[:8]}")
        scales = [float(s) for s in given]
        sizes = [int(np.floor(own * s)) for own, s in zip(x.shape, scales, strict=True)]
    if tuple(sizes[:2]) != x.shape[:2] or not all(1 <= s <= 4096 for s in sizes[2:]):
        node.refuse(f"sizes {sizes} for {list(x.shape)}")
    wanted = [_picked(node, x.shape[a], sizes[a], scales[a]) for a in (2, 3)]
    for align, half in ((False, False), (False, True), (True, False)):
        attributes = Resize(sizes[2], sizes[3], align, half)
        out = b.emit("RESIZE_NEAREST_NEIGHBOR", (index,), attributes, node.name)
        if _pixels(b, out) == wanted:
            return [b.result(out, order)]
        b.withdraw(out)
    node.refuse(
        "this choice of pixels",
        "use coordinate_transformation_mode 'asymmetric' with nearest_mode 'floor'",
    )


def _pixels(b: Builder, out: int) -> list[list[int]]:
    """Return the rows and columns that the resizing node which writes a tensor picks."""
    node = b.makers[out]
    call = Call(b.graph(), node)
    _, height, width, _ = b.tensors[node.inputs[0] or 0].shape
    reference = op_named(node.op).float_reference
    assert reference is not None
    rows = np.broadcast_to(np.arange(height)[None, :, None, None], (1, height, width, 1))
    columns = np.broadcast_to(np.arange(width)[None, None, :, None], (1, height, width, 1))
    return [
        [int(v) for v in reference(call, [rows])[0][0, :, 0, 0]],
        [int(v) for v in reference(call, [columns])[0][0, 0, :, 0]],
    ]
