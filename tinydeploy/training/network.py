"""Turn a float network into a Keras model that computes as its integers would, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.ir import DType, Graph
from tinydeploy.ir.graph import constant
from tinydeploy.ops import Call
from tinydeploy.quantize.calibrate import Progress, Statistics, calibrate, quiet
from tinydeploy.quantize.equalize import equalize
from tinydeploy.quantize.normal import WEIGHTS_AXIS, normalise
from tinydeploy.quantize.quantize import Quantized, Settings
from tinydeploy.quantize.ranges import METHODS
from tinydeploy.quantize.rewrite import (
    bias_floor,
    joined_tensors,
    store_activations,
    to_integer,
)
from tinydeploy.quantize.weights import quantize_weights
from tinydeploy.training.source import Samples, graph_of, require_tensorflow, samples_of

Array = NDArray[Any]
_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """Remember what a model in training was made from: layers by node, ranges by tensor."""

    graph: Graph
    settings: Settings
    samples: Samples
    statistics: Mapping[int, Statistics]
    weighted: Mapping[int, Any]
    ranges: Mapping[int, Any]


def prepare(
    model: Any,
    samples: Array | Sequence[Array],
    settings: Settings = _DEFAULTS,
    progress: Progress = quiet,
) -> Any:
    """Return a keras.Model that computes what the integer network would, to be trained on.

    `model` is a functional or sequential keras.Model, or a float Graph as importers read it;
    `samples` one array per input as for `fit`, the first axis counting samples. Weights begin as
    they are, with batch normalisation folded in; ranges and scales as `quantize` chooses them,
    and all are trained. The settings `rounding` and `correct_bias` are ways to do without training
    and play no part. Raises ModelError for what cannot be quantised or trained, UsageError for
    samples that do not fit and settings without meaning here, or where TensorFlow is missing.
    """
    _check(settings)
    require_tensorflow()
    imported = model if isinstance(model, Graph) else graph_of(model, samples)
    graph = normalise(imported)
    if settings.equalize:
        graph = equalize(graph)
    shapes = [graph.tensors[i].shape for i in graph.inputs]
    taken = samples_of(samples, shapes)
    statistics = calibrate(graph, taken, progress)
    return _build(graph, settings, taken, statistics)


def _check(settings: Settings) -> None:
    if settings.codebooks or settings.narrow:
        raise UsageError(
            "training knows neither codebooks nor activations of fewer than 8 bits",
            f"codebooks {settings.codebooks}, narrow {dict(settings.narrow)}",
            "leave these settings out, or quantise without training",
        )


def _build(
    graph: Graph, settings: Settings, samples: Samples, statistics: Mapping[int, Statistics]
) -> Any:
    import keras

    from tinydeploy.training.layers import Function, Weighted

    ranges = _ranges(graph, settings, statistics)
    first = store_activations(graph, {i: r.range for i, r in ranges.items()}, settings.activations)
    inputs = [keras.Input(graph.tensors[i].shape[1:]) for i in graph.inputs]
    values = {i: ranges[i](x) for i, x in zip(graph.inputs, inputs, strict=True)}
    weighted: dict[int, Any] = {}
    for position, node in enumerate(graph.nodes):
        call, out = Call(graph, node), node.outputs[0]
        name, sources = f"{position}_{node.op.lower()}", graph.activation_inputs(node)
        _check_node(call)
        if node.op in WEIGHTS_AXIS:
            data = call.input(1).data
            assert data is not None
            bits, floor = settings.bits_of(position), bias_floor(graph, node, first)
            start = quantize_weights(data, WEIGHTS_AXIS[node.op], bits, floor=floor)
            source = ranges[sources[0]]
            layer = weighted[position] = Weighted(call, source, ranges[out], start, bits, name)
            values[out] = layer(values[sources[0]])
        else:
            stored = [None if i not in values else ranges[i] for i in node.inputs if i is not None]
            last = out in graph.outputs
            layer = Function(call, stored, ranges[out], last, name)
            values[out] = layer([values[i] for i in sources])
    outputs = [values[o] for o in graph.outputs]
    model = keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        outputs if len(outputs) > 1 else outputs[0],
        name="quantized",
    )
    model.quantization_origin = _Origin(graph, settings, samples, statistics, weighted, ranges)
    return model


def _ranges(
    graph: Graph, settings: Settings, statistics: Mapping[int, Statistics]
) -> dict[int, Any]:
    """Return the layer that holds the range of each tensor; tensors may share one."""
    from tinydeploy.training.layers import Stored

    kind, method = settings.activations, METHODS[settings.ranges]
    seen = {i: method(s, 16 if kind is DType.INT16 else 8) for i, s in statistics.items()}
    roots, fixed = joined_tensors(graph, seen, kind)
    layers: dict[int, Any] = {}
    for root in sorted(set(roots.values())):
        members = [i for i in roots if roots[i] == root]
        low, high = min(seen[i][0] for i in members), max(seen[i][1] for i in members)
        elements = graph.tensors[root].elements
        stored = Stored((low, high), kind, elements, fixed.get(root), f"stored_{root}")
        layers |= dict.fromkeys(members, stored)
    return layers


def _check_node(call: Call) -> None:
    """Raise ModelError for a node that training does not know, or that mixes samples."""
    from tinydeploy.training.operators import FUNCTIONS

    op = call.node.op
    if op not in FUNCTIONS and op not in WEIGHTS_AXIS:
        raise ModelError(
            f"{op} cannot be trained", f"known: {', '.join(sorted([*FUNCTIONS, *WEIGHTS_AXIS]))}",
            "quantise the model without training", call.node.name,
        )  # fmt: skip
    if op in WEIGHTS_AXIS and not all(t is None or t.constant for t in call.inputs[1:]):
        raise ModelError(
            f"{op} with weights that are computed cannot be quantised", where=call.node.name
        )
    for tensor in (*call.inputs, *call.outputs):
        if tensor is not None and not tensor.constant and tensor.shape[:1] != (1,):
            raise ModelError(
                "training needs a first axis of 1 in every tensor, for the batch",
                f"'{tensor.name}' is {list(tensor.shape)}",
                "keep the batch out of reshapes and transpositions",
                call.node.name,
            )


def export(trained: Any) -> Quantized:
    """Return the integers of a model that `prepare` made, with its weights and ranges as trained.

    No samples are run. Raises UsageError for other models, ModelError for weights that are not
    finite.
    """
    origin = getattr(trained, "quantization_origin", None)
    if not isinstance(origin, _Origin):
        raise UsageError(
            "this model was not made by prepare",
            "a copy or a saved model does not know what it came from",
            "prepare again, load its weights (load_weights), and export that",
        )
    tensors, nodes = list(origin.graph.tensors), list(origin.graph.nodes)
    for position, layer in origin.weighted.items():
        node = nodes[position]
        indices = [i for i in node.inputs[1:] if i is not None]
        for k, variable in enumerate([v for v in (layer.kernel, layer.bias) if v is not None]):
            old = tensors[indices[k]]
            data = np.asarray(variable.value.numpy(), np.float32).reshape(old.shape)
            if not np.isfinite(data).all():
                raise ModelError(
                    "training ended in weights that are not finite numbers",
                    f"'{old.name}'",
                    "train with a lower rate",
                    node.name,
                )
            indices[k] = len(tensors)
            tensors.append(replace(old, data=constant(data)))
        nodes[position] = replace(node, inputs=(node.inputs[0], *indices))
    graph = origin.graph.replace(tensors=tuple(tensors), nodes=tuple(nodes))
    settings = origin.settings
    ranges = {i: layer.range for i, layer in origin.ranges.items()}
    stored = store_activations(graph, ranges, settings.activations)
    weights = {p: layer.stored_weights() for p, layer in origin.weighted.items()}
    integers = to_integer(graph, stored, weights)
    return Quantized(graph, integers, origin.statistics, settings, origin.samples)
