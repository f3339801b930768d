"""Turn a Graph into text that people diff and tests keep as golden files."""

from __future__ import annotations

import dataclasses
from typing import Any

from tinydeploy.ir.graph import Graph, Tensor


def describe_tensor(tensor: Tensor) -> str:
    """Return type, shape and quantisation of a tensor, e.g. `int8[1,8,8,3] scale 0.5 zero -3`."""
    text = f"{tensor.dtype.value}[{','.join(map(str, tensor.shape))}]"
    if q := tensor.quantization:
        scale = f"{len(q.scales)} scales on axis {q.axis}" if q.per_channel else f"{q.scale:.7g}"
        text += f" scale {scale} zero {q.zero_point}"
    return text


def dump_graph(graph: Graph) -> str:
    """Return one line per tensor in use and per node, in execution order."""
    lines = [f"graph {graph.name}"]
    lines += [f"  input  %{i} {describe_tensor(graph.tensors[i])}" for i in graph.inputs]
    for node in graph.nodes:
        args = ", ".join("none" if i is None else f"%{i}" for i in node.inputs)
        outs = ", ".join(f"%{i} {describe_tensor(graph.tensors[i])}" for i in node.outputs)
        lines.append(f"  {outs} = {node.op}({args}){_attributes(node.attributes)}")
    lines += [f"  output %{i} {describe_tensor(graph.tensors[i])}" for i in graph.outputs]
    return "\n".join(lines) + "\n"


def _attributes(attributes: Any) -> str:
    if attributes is None:
        return ""
    pairs = (f"{f.name}={getattr(attributes, f.name)}" for f in dataclasses.fields(attributes))
    return " {" + ", ".join(pairs) + "}"
