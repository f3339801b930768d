"""tinydeploy inspect: what a model holds, before anything is done to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("inspect")
@options.MODEL
@options.common
def command(
    model: Path, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None
) -> int:
    """Show inputs, outputs, operators and work of MODEL; -v lists every node."""
    from tinydeploy.importers import read_model
    from tinydeploy.ir.dump import describe_tensor, dump_graph
    from tinydeploy.ops.execute import total_macs

    graph = read_model(model)
    kinds = Counter(node.op for node in graph.nodes)
    macs = total_macs(graph)
    weights = sum(t.bytes for t in graph.tensors if t.constant)
    figures: dict[str, Any] = {
        "model": {"name": model.name, "sha256": graph.source_sha256, "macs": macs},
        "constant_bytes": weights,
        "inputs": [
            {"name": graph.tensors[i].name, "tensor": describe_tensor(graph.tensors[i])}
            for i in graph.inputs
        ],
        "outputs": [
            {"name": graph.tensors[i].name, "tensor": describe_tensor(graph.tensors[i])}
            for i in graph.outputs
        ],
        "operators": dict(kinds.most_common()),
    }

    def show(console: Any) -> None:
        console.print(f"{model.name}  {macs:,} MACs  {weights:,} bytes of constants", markup=False)
        for what in ("inputs", "outputs"):
            for value in figures[what]:
                console.print(f"{what[:-1]:<8} {value['tensor']}  {value['name']}", markup=False)
        for name, count in kinds.most_common():
            console.print(f"{count:>8} {name}", markup=False)
        if verbose:
            console.print(dump_graph(graph), markup=False)

    options.Screen(as_json, verbose, color).result(figures, show)
    return 0
