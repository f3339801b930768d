"""Write mobile.onnx: a small MobileNetV2 in the form that torch.onnx.export gives it, opset 17.

The nodes, names and constants are those of an export with a dynamic batch and without folding:
batch normalisation and ReLU6 are nodes of their own, and `x.view(x.size(0), -1)` is a chain of
Shape, Gather, Unsqueeze, Concat and Reshape. Weights are random, from a fixed seed::

    python tests/models/make_mobile_onnx.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE, CLASSES = 32, 10
# Expansion, channels and stride of each inverted residual block (Sandler et al. 2018, table 2).
BLOCKS = ((1, 8, 1), (6, 12, 2), (6, 12, 1), (6, 16, 2), (6, 16, 1))


@dataclass
class Exporter:
    """Collect nodes and initializers under PyTorch's names for them."""

    rng: np.random.Generator
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def node(self, kind: str, path: str, inputs: list[str], **attributes: Any) -> str:
        count = sum(n.name.startswith(f"{path}/{kind}") for n in self.nodes)
        name = f"{path}/{kind}" + (f"_{count}" if count else "")
        out = f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=name, **attributes))
        return out

    def constant(self, path: str, value: NDArray[Any]) -> str:
        return self.node("Constant", path, [], value=numpy_helper.from_array(value))

    def weight(self, name: str, values: NDArray[Any]) -> str:
        self.initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, x: str, place: str, c_in: int, c_out: int, kernel: int, stride: int,
             groups: int = 1) -> str:  # fmt: skip
        """Conv2d without bias and BatchNorm2d, as torchvision's ConvBNActivation has them."""
        path = "/" + place.replace(".", "/")
        fan = c_in // groups * kernel * kernel
        shape = (c_out, c_in // groups, kernel, kernel)
        filters = self.rng.normal(0, np.sqrt(2 / fan), shape)
        pad = kernel // 2
        x = self.node(
            "Conv", f"{path}/0", [x, self.weight(f"{place}.0.weight", filters)],
            dilations=[1, 1], group=groups, kernel_shape=[kernel, kernel],
            pads=[pad] * 4, strides=[stride, stride],
        )  # fmt: skip
        statistics = {
            "weight": self.rng.uniform(0.6, 1.4, c_out), "bias": self.rng.normal(0, 0.3, c_out),
            "running_mean": self.rng.normal(0, 0.2, c_out),
            "running_var": self.rng.uniform(0.5, 1.5, c_out),
        }  # fmt: skip
        names = [self.weight(f"{place}.1.{k}", v) for k, v in statistics.items()]
        return self.node(
            "BatchNormalization", f"{path}/1", [x, *names], epsilon=1e-5, momentum=0.9,
            training_mode=0,
        )  # fmt: skip

    def relu6(self, x: str, place: str) -> str:
        path = "/" + place.replace(".", "/")
        low, high = (self.constant(path, np.float32(v)) for v in (0, 6))
        return self.node("Clip", path, [x, low, high])


def model(seed: int = 0) -> onnx.ModelProto:
    """Return the network: [batch, 3, 32, 32] -> [batch, 10]."""
    e = Exporter(np.random.default_rng(seed))
    channels = 8
    x = e.relu6(e.conv("input", "features.0", 3, channels, 3, 2), "features.0.2")
    for number, (expansion, out, stride) in enumerate(BLOCKS, 1):
        before, inner, place = x, channels * expansion, f"features.{number}.conv"
        if expansion > 1:
            x = e.relu6(e.conv(x, f"{place}.0", channels, inner, 1, 1), f"{place}.0.2")
        x = e.relu6(e.conv(x, f"{place}.1", inner, inner, 3, stride, inner), f"{place}.1.2")
        x = e.conv(x, f"{place}.2", inner, out, 1, 1)
        if stride == 1 and channels == out:
            x = e.node("Add", f"/features.{number}".replace(".", "/"), [before, x])
        channels = out
    x = e.relu6(e.conv(x, "features.6", channels, 32, 1, 1), "features.6.2")
    # nn.AvgPool2d(2), x.view(x.size(0), -1), nn.Linear: features in the order C, H, W.
    x = e.node("AveragePool", "/pool", [x], ceil_mode=0, count_include_pad=1,
               kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[2, 2])  # fmt: skip
    size = e.node("Gather", "", [e.node("Shape", "", [x]), e.constant("", np.int64(0))], axis=0)
    axes = e.constant("", np.array([0], np.int64))
    rest = e.constant("", np.array([-1], np.int64))
    shape = e.node("Concat", "", [e.node("Unsqueeze", "", [size, axes]), rest], axis=0)
    x = e.node("Reshape", "", [x, shape], allowzero=0)
    features = 32 * (SIZE // 16) ** 2
    matrix = e.rng.normal(0, np.sqrt(1 / features), (CLASSES, features))
    names = [
        e.weight("classifier.weight", matrix),
        e.weight("classifier.bias", e.rng.normal(0, 0.1, CLASSES)),
    ]
    e.nodes.append(helper.make_node("Gemm", [x, *names], ["output"], name="/classifier/Gemm",
                                    alpha=1.0, beta=1.0, transB=1))  # fmt: skip
    graph = helper.make_graph(
        e.nodes, "main_graph",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        e.initializers,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


if __name__ == "__main__":
    Path(__file__).with_name("mobile.onnx").write_bytes(model().SerializeToString())
