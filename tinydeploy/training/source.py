"""Turn a Keras model or float Graph, and data as `fit` takes it, into normal form and samples."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.importers import read_model
from tinydeploy.ir import Graph
from tinydeploy.ops.execute import run_floats
from tinydeploy.plan.exact import solver_installed

Array = NDArray[Any]
Samples = list[list[Array]]

# Without oneDNN TensorFlow is silent when it loads, and sums in one order.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


def require_tensorflow() -> None:
    """Make TensorFlow quiet if it is not loaded yet; raises UsageError where it is missing."""
    if find_spec("tensorflow") is None:
        raise UsageError(
            "training with quantisation needs TensorFlow",
            "",
            "pip install 'tinydeploy[tensorflow]'",
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if solver_installed() and "tensorflow" not in sys.modules:
        import ortools.sat.python.cp_model  # noqa: F401  it crashes when loaded after TensorFlow
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            "training with quantisation needs Keras to run on TensorFlow",
            f"it runs on {keras.backend.backend()}",
            "set KERAS_BACKEND=tensorflow before Keras is loaded",
        )


def samples_of(data: Array | Sequence[Array], shapes: Sequence[tuple[int, ...]]) -> Samples:
    """Return samples of batch 1 from one array per input, the first axis counting samples.

    `shapes` are those of one sample, with a first axis of 1. Raises UsageError where the data do
    not fit them.
    """
    arrays = [np.asarray(a) for a in (data if isinstance(data, (list, tuple)) else [data])]
    wanted = ", ".join(str(["n", *s[1:]]).replace("'", "") for s in shapes)
    found = ", ".join(str(list(a.shape)) for a in arrays)
    fits = len(arrays) == len(shapes) and all(
        a.ndim == len(s) and a.shape[1:] == s[1:] for a, s in zip(arrays, shapes, strict=True)
    )
    if not fits or len({len(a) for a in arrays}) != 1:
        raise UsageError(
            "the samples do not have the shapes of the model's inputs",
            f"wanted {wanted}; found {found}",
            "give one array per input, as to fit",
        )
    if any(a.dtype.kind not in "fiub" for a in arrays):
        raise UsageError("the samples are not numbers", f"found {[str(a.dtype) for a in arrays]}")
    return [[a[k : k + 1].astype(np.float32) for a in arrays] for k in range(len(arrays[0]))]


def graph_of(model: Any, data: Array | Sequence[Array]) -> Graph:
    """Return a Keras model as a float Graph with its inputs and outputs in the model's order.

    A file format in between may reorder them, so the graph is run beside the model. Raises
    ModelError for models that cannot be imported, or that the graph does not agree with.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise UsageError("this is no Keras model and no Graph", f"it is a {type(model).__name__}")
    shapes = [tuple(t.shape) for t in getattr(model, "inputs", None) or []]
    if not shapes or any(None in s[1:] for s in shapes):
        raise ModelError(
            "the model's input shapes are not known",
            f"{[list(s) for s in shapes]}",
            "use a functional or sequential model with fixed input shapes",
        )
    sample = samples_of(data, [(1, *s[1:]) for s in shapes])[:1]
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as folder:
        path = Path(folder) / f"{model.name}.keras"
        model.save(path)
        graph = read_model(path)
    if not sample:
        return graph
    found = model([*sample[0]] if len(shapes) > 1 else sample[0][0], training=False)
    expected = [np.asarray(v) for v in (found if isinstance(found, (list, tuple)) else [found])]
    return ordered(graph, sample[0], expected)


def ordered(graph: Graph, sample: Sequence[Array], expected: Sequence[Array]) -> Graph:
    """Order inputs and outputs so that a graph maps a sample to what is expected."""
    shapes = [s.shape for s in sample]
    for inputs in itertools.permutations(graph.inputs):
        if [graph.tensors[i].shape for i in inputs] != shapes:
            continue
        values = run_floats(graph.replace(inputs=inputs), sample)
        outputs: list[int] = []
        for wanted in expected:
            outputs += [
                o
                for o in graph.outputs
                if o not in outputs
                and values[o].shape == wanted.shape
                and np.allclose(values[o], wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
            ][:1]
        if len(outputs) == len(expected):
            return graph.replace(inputs=inputs, outputs=tuple(outputs))
    raise ModelError(
        "the model as imported computes something else than Keras does",
        f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs",
        "please report this model",
    )
