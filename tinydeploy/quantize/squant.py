"""Turn weights divided by their scales into integers whose rounding errors cancel (SQuant).

Guo et al., "SQuant: On-the-Fly Data-Free Quantization via Diagonal Hessian Approximation" (ICLR
2022), section 3.3: inputs of a layer are alike in sign and size, so what reaches its output is the
sum of the errors. Rounding to nearest keeps each error small; flipping a few elements to the
other neighbour brings the sums of every kernel, then of every output channel, within one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydeploy.quantize.weights import Floats, Integers

_Reals = NDArray[np.float64]


def squant(scaled: Floats, axis: int, largest: int) -> Integers:
    """Round each weight down or up so that the errors of an output channel add to at most 1/2.

    `scaled` are weights [out, height, width, in], [1, height, width, out] (depthwise) or
    [out, in], output channels along `axis`. The kernel of one input and one output channel has
    errors that add to at most 1/2, too, except where its channel needed one flip more: at most 1.
    Weights beyond the range are those at its end; what that costs is not part of the sums.
    """
    kernels, shape = _kernels(scaled, axis)
    wanted = np.clip(kernels.astype(np.float64), -largest, largest)
    rounded = np.rint(wanted)
    flip_kernels(rounded, wanted)
    flip_channels(rounded, wanted)
    return _restore(rounded, shape, axis).astype(np.int8)


def flip_kernels(rounded: _Reals, wanted: _Reals) -> None:
    """Flip, in place, the elements of each kernel [..., elements] whose errors are largest.

    Each flip moves the sum by 1, so as many as the sum rounded bring it within 1/2. Enough
    elements err the same way, as none errs by more than 1/2.
    """
    errors = rounded - wanted
    sums = errors.sum(axis=-1, keepdims=True)
    towards = errors * np.sign(sums)  # positive: flipping shrinks the sum
    rank = np.argsort(np.argsort(-towards, axis=-1, kind="stable"), axis=-1, kind="stable")
    rounded -= np.sign(sums) * (rank < np.rint(np.abs(sums)))


def flip_channels(rounded: _Reals, wanted: _Reals) -> None:
    """Flip, in place, at most one element of each kernel [channels, kernels, elements].

    A kernel offers the element that costs least in squared error: flipping one with error e to
    the other side changes e^2 by 1 - 2 |e|.
    """
    errors = rounded - wanted
    sums = errors.sum(axis=(1, 2))[:, None]
    # Kernels that err the same way as their channel end, when flipped, within 1.
    towards = errors * np.sign(sums)[..., None]
    own = towards.sum(axis=-1)
    best = towards.argmax(axis=-1)[..., None]
    gain = np.where(own > 0, np.take_along_axis(towards, best, -1)[..., 0], -np.inf)
    rank = np.argsort(np.argsort(-gain, axis=-1, kind="stable"), axis=-1, kind="stable")
    flips = np.sign(sums) * (rank < np.rint(np.abs(sums)))
    old = np.take_along_axis(rounded, best, -1)
    np.put_along_axis(rounded, best, old - flips[..., None], -1)


def _kernels(weights: Floats, axis: int) -> tuple[Floats, tuple[int, ...]]:
    """Return weights as [channels, kernels, elements], and their shape with channels first.

    With channels first the last axis is that of the input channels; a depthwise filter has one.
    """
    first = np.moveaxis(weights, axis, 0)
    depth = 1 if axis else first.shape[-1]
    flat = first.reshape(first.shape[0], -1, depth)
    return flat.transpose(0, 2, 1), first.shape


def _restore(kernels: _Reals, shape: tuple[int, ...], axis: int) -> _Reals:
    """Undo `_kernels`."""
    return np.moveaxis(kernels.transpose(0, 2, 1).reshape(shape), 0, axis)
