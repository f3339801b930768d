"""Make small ONNX models and compare what the importer makes of them with ONNX's own evaluator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tinydeploy.importers import read_model
from tinydeploy.ir import Graph
from tinydeploy.ops.execute import run_floats

Array = NDArray[Any]


@dataclass
class Net:
    """Collect nodes and constants; values are named by the nodes that make them."""

    opset: int = 17
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def input(self, *shape: int | str, kind: int = TensorProto.FLOAT) -> str:
        name = f"in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(self.rng.normal(0, 0.5, shape))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 1.5, shape))

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"n{len(self.nodes)}_{k}" if outputs > 1 else f"n{len(self.nodes)}"
                 for k in range(outputs)]  # fmt: skip
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names if outputs > 1 else names[0]

    def model(self, *outputs: str) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, infos, self.initializers)
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def imported(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Graph:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return read_model(path)


def wanted(model: onnx.ModelProto, inputs: list[Array]) -> list[Array]:
    """Return what ONNX's reference evaluator computes."""
    evaluator = ReferenceEvaluator(model)
    found = evaluator.run(None, dict(zip(evaluator.input_names, inputs, strict=True)))
    return [np.asarray(v) for v in found]


def in_graph_order(graph: Graph, inputs: list[Array]) -> list[Array]:
    return [
        np.ascontiguousarray(x.transpose(axes))
        for x, axes in zip(inputs, graph.input_axes, strict=True)
    ]


def assert_agrees(model: onnx.ModelProto, folder: Path, atol: float = 1e-4) -> Graph:
    """Import a float model, compare its outputs for two random inputs, return the graph."""
    graph = imported(model, folder)
    rng = np.random.default_rng(1)
    for _ in range(2):
        inputs = [
            rng.normal(size=[d.dim_value or 1 for d in i.type.tensor_type.shape.dim]).astype(
                np.float32
            )
            for i in model.graph.input
        ]
        values = run_floats(graph, in_graph_order(graph, inputs))
        for index, axes, want in zip(
            graph.outputs, graph.output_axes, wanted(model, inputs), strict=True
        ):
            assert values[index].shape == want.transpose(axes).shape
            np.testing.assert_allclose(values[index], want.transpose(axes), rtol=0, atol=atol)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]
