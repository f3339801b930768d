"""Turn weights into stored integers one input at a time, later ones making up for earlier errors.

What counts is the error of a layer's outputs over the samples, d' H d for an error d of one output
channel's weights and the second moments H of the inputs. After one weight is rounded, the best
change of those not yet rounded is known in closed form (Frantar et al., "GPTQ: Accurate
Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023, section 3). Where
the bias is corrected afterwards, the mean of the error costs nothing, so H is the covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydeploy.ir import Graph, Node
from tinydeploy.ops import Call
from tinydeploy.ops import _window as window
from tinydeploy.ops.execute import run_floats
from tinydeploy.quantize.calibrate import Progress, quiet
from tinydeploy.quantize.normal import WEIGHTS_AXIS

Array = NDArray[Any]
Reals = NDArray[np.float64]

# Second moments settle soon: a convolution sees every pixel. Damping as GPTQ's, a share of the
# mean of the diagonal, keeps inputs that hardly vary from being asked to make up for others.
MOST_SAMPLES = 64
_DAMPING = 0.01
_NOISE = 1e-9  # share of the inputs' power


def moments(
    graph: Graph, samples: Sequence[Sequence[Array]], centred: bool, progress: Progress = quiet
) -> dict[int, Reals]:
    """Return the second moments of the inputs of each layer, [groups, taps, taps] by position.

    `centred` takes the mean away. At most MOST_SAMPLES samples, spread over those given, are used.
    """
    count = min(len(samples), MOST_SAMPLES)
    sums: dict[int, tuple[Reals, Reals, int]] = {}
    layers = [
        (p, n)
        for p, n in enumerate(graph.nodes)
        if n.op in WEIGHTS_AXIS and graph.tensor(n.inputs[1]).constant
    ]
    for k in range(count):
        values = run_floats(graph, samples[k * len(samples) // count])
        for position, node in layers:
            x = _inputs(graph, node, values[node.inputs[0] or 0])
            square, total = np.matmul(x.transpose(0, 2, 1), x), x.sum(axis=1)
            if position in sums:
                before = sums[position]
                square, total = before[0] + square, before[1] + total
            sums[position] = square, total, x.shape[1] * count
        progress(k + 1, count)
    result = {}
    for position, (square, total, n) in sums.items():
        mean = total / n
        outer = mean[:, :, None] * mean[:, None, :] if centred else 0.0
        # Inputs that never vary have a covariance of rounding errors: keep it well above those.
        power = np.trace(square, axis1=1, axis2=2)[:, None, None] / (n * square.shape[1])
        result[position] = square / n - outer + _NOISE * power * np.eye(square.shape[1])
    return result


def _inputs(graph: Graph, node: Node, x: Array) -> Array:
    """Return what meets the weights of each group of channels: [groups, places, taps]."""
    call, x = Call(graph, node), x.astype(np.float64)
    if node.op == "FULLY_CONNECTED":
        return x.reshape(1, -1, call.input(1).shape[1])
    taps = window.patches(x, window.convolution(call), 0)
    taps = taps.reshape(-1, taps.shape[2] * taps.shape[3], taps.shape[4])
    weights = call.input(1).shape
    depth = 1 if node.op == "DEPTHWISE_CONV_2D" else weights[3]
    split = taps.reshape(*taps.shape[:2], -1, depth).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(split.reshape(split.shape[0], taps.shape[0], -1))


def with_feedback(
    scaled: Array, axis: int, moment: Reals, nearest: Callable[[Reals], Reals]
) -> NDArray[np.int8]:
    """Return stored integers for weights divided by their scales, output channels along `axis`.

    `nearest` rounds values to what can be stored. Inputs are rounded from the one with most power.
    """
    first = np.moveaxis(scaled, axis, 0)
    groups, taps, _ = moment.shape
    rows = first.reshape(groups, -1, taps).astype(np.float64)
    diagonal = np.diagonal(moment, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order[:, None, :], 2)
    h = np.take_along_axis(np.take_along_axis(moment, order[:, :, None], 1), order[:, None, :], 2)
    damping = _DAMPING * diagonal.mean(axis=1)
    # An input that is always zero leaves the rounding to nearest as it is.
    h = h + np.where(damping > 0, damping, 1.0)[:, None, None] * np.eye(taps)
    upper = np.linalg.cholesky(np.linalg.inv(h)).transpose(0, 2, 1)
    stored = np.empty_like(rows)
    for k in range(taps):
        stored[:, :, k] = nearest(rows[:, :, k])
        error = (rows[:, :, k] - stored[:, :, k]) / upper[:, k, k][:, None]
        rows[:, :, k:] -= error[:, :, None] * upper[:, None, k, k:]
    result = np.empty_like(stored)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], result.shape), stored, 2)
    return np.moveaxis(result.reshape(first.shape), 0, axis).astype(np.int8)
