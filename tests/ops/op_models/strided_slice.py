"""Make STRIDED_SLICE models: masks, negative indices and strides, vanishing axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from builder import Builder
from numpy.random import Generator

from op_models import _draw as draw


def model(
    random: Generator,
    source: tuple[int, ...],
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int],
    masks: tuple[int, int, int] = (0, 0, 0),
    *,
    offset: bool = False,
) -> draw.Model | None:
    """Return a slice, or None if nothing would be left; masks are begin, end and shrink.

    With `offset`, `end` counts from `begin`.
    """
    counts = []
    for axis, size in enumerate(source):
        if axis >= len(begin):
            counts.append(size)
        elif masks[2] >> axis & 1:
            continue
        else:
            first = None if masks[0] >> axis & 1 else begin[axis]
            last = None if masks[1] >> axis & 1 else end[axis]
            if offset and last is not None:
                last += slice(first, None, stride[axis]).indices(size)[0]
            counts.append(len(range(*slice(first, last, stride[axis]).indices(size))))
    if 0 in counts:
        return None
    b = Builder()
    scale, zero = draw.scale(random), draw.zero_point(random)
    x = b.tensor(source, scale=scale, zero=zero)
    y = b.tensor(counts, scale=scale, zero=zero)
    extra = [b.constant(np.array(v, np.int32)) for v in (begin, end, stride)]
    b.operator(
        "STRIDED_SLICE", [x, *extra], y,
        BeginMask=masks[0], EndMask=masks[1], ShrinkAxisMask=masks[2], Offset=offset,
    )  # fmt: skip
    text = (
        f"slice {source} {list(begin)} : {list(end)} : {list(stride)} masks {masks} offset {offset}"
    )
    return draw.Model(text, b.build([x], [y]))


def fixed() -> Iterator[draw.Model]:
    random = np.random.default_rng(12)
    shape = (1, 6, 7, 5)
    full = [1, 6, 7, 5]
    made = [
        model(random, shape, [0, 1, 2, 1], [1, 5, 6, 4], [1, 1, 1, 1]),
        model(random, shape, [0, 0, 0, 0], full, [1, 2, 3, 2]),
        model(random, shape, [0, -1, -1, -1], [1, -7, -8, -6], [1, -1, -1, -1]),
        model(random, shape, [0, -1, -2, 4], [1, 0, 0, -9], [1, -2, -3, -2]),
        model(random, shape, [0, -4, -5, -3], [1, -1, -2, 9], [1, 1, 1, 1]),
        model(random, shape, [9, 9, 9, 9], [-9, -9, -9, -9], [1, 2, 1, 1], (15, 15, 0)),
        model(random, shape, [0, 0, 0, 0], [1, 1, 1, 1], [1, -1, -1, -1], (15, 15, 0)),
        model(random, (6,), [4], [1], [-1]),
        model(random, (5, 4), [1], [4], [2]),
        model(random, (3, 5, 4), [0, 1], [3, 4], [2, 2]),
        model(random, shape, [0, 0], [1, 100], [1, 1]),
    ]
    for shrink in range(16):
        made.append(model(random, shape, [0, 2, 3, 1], full, [1, 1, 1, 1], (0, 0, shrink)))
        made.append(model(random, shape, [0, -2, -3, -1], full, [1, 1, 1, 1], (0, 0, shrink)))
    for begin in range(16):
        made.append(model(random, shape, [0, 1, 2, 3], full, [1, 1, 2, 1], (begin, 15 - begin, 0)))
    yield from (m for m in made if m is not None)


def drawn(random: Generator) -> draw.Model:
    while True:
        source = draw.shape(random)
        offset = bool(random.random() < 0.2)
        # LiteRT runs astray where an offset leaves the axis, or meets axes that are not given.
        axes = len(source) if offset else draw.integer(random, 1, len(source))
        begin, end = (
            [draw.integer(random, -s - 1, s + 1) for s in source[:axes]] for _ in range(2)
        )
        stride = [int(random.choice([1, 1, 2, 3, -1, -2])) for _ in range(axes)]
        shrink = draw.integer(random, 0, 15) & draw.integer(random, 0, 15) & ((1 << axes) - 1)
        for axis in range(axes):
            if shrink >> axis & 1:
                begin[axis] = draw.integer(random, -source[axis], source[axis] - 1)
                stride[axis] = 1
        masks = (draw.integer(random, 0, 15), draw.integer(random, 0, 15), shrink)
        if offset:
            begin = [draw.integer(random, 0, s - 1) for s in source[:axes]]
            end = [draw.integer(random, 1, s - b) for s, b in zip(source, begin, strict=False)]
            stride = [abs(s) for s in stride]
            masks = (0, 0, shrink)
        if made := model(random, source, begin, end, stride, masks, offset=offset):
            return made
