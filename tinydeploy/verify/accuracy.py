"""Turn outputs and true labels into one figure: top-1 accuracy or area under the ROC curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tinydeploy.errors import UsageError

Array = NDArray[Any]
Metric = Literal["top1", "auc"]


def metric_for(inputs: Array, output: Array, labels: Array) -> Metric:
    """Choose the metric from the shapes of one sample and all labels.

    Labels 0 and 1 on a network with one output value, or one as large as its input (an
    autoencoder), ask for the area under the curve; all others for top-1 accuracy. Raises
    UsageError for labels that are no class of the network.
    """
    binary = set(np.unique(labels).tolist()) <= {0, 1}
    if binary and output.size in (1, inputs.size):
        return "auc"
    if labels.min() < 0 or labels.max() >= output.size:
        raise UsageError(
            "a label names a class that the network does not have",
            f"labels {labels.min()} to {labels.max()}, {output.size} outputs",
        )
    return "top1"


def accuracy(
    metric: Metric, inputs: Sequence[Array], outputs: Sequence[Array], labels: Array
) -> float:
    """Return the share of right answers, or the area under the ROC curve; from 0 to 1."""
    if metric == "top1":
        hits = [int(np.argmax(o)) == int(n) for o, n in zip(outputs, labels, strict=True)]
        return sum(hits) / len(hits)
    return area_under_curve(np.array([_score(x, y) for x, y in zip(inputs, outputs, strict=True)]),
                            labels)  # fmt: skip


def _score(x: Array, y: Array) -> float:
    """Return how abnormal a sample looks: its one output, or how badly it was reconstructed."""
    if y.size == 1:
        return float(y.reshape(-1)[0])
    return float(np.mean((x.reshape(-1).astype(np.float64) - y.reshape(-1)) ** 2))


def area_under_curve(scores: Array, labels: Array) -> float:
    """Return the chance that a positive sample scores above a negative one, ties counting half.

    Mann and Whitney's U over the product of the numbers. Raises UsageError when one kind of
    sample is missing.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        raise UsageError(
            "the area under the curve needs labels of both kinds",
            f"{len(positive)} samples are labelled 1, {len(negative)} are labelled 0",
        )
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).sum() / 2 / (len(positive) * len(negative)))
