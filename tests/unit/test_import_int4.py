"""Weights of 4 bits: imported as what they are, computed as LiteRT computes them."""

import numpy as np
import pytest
from builder import Builder

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.verify.litert import LiteRt


def network(random: np.random.Generator) -> tuple[bytes, np.ndarray]:
    b = Builder()
    x = b.tensor((1, 5, 4, 3), scale=0.05, zero=7)
    data = random.integers(-8, 8, (5, 3, 3, 3))
    w = b.tensor(data.shape, "int4", [0.1] * 5, [0] * 5, axis=0, data=data)
    bias = b.constant(random.integers(-500, 500, 5), "int32", 0.005)
    y = b.tensor((1, 5, 4, 5), scale=0.4, zero=-3)
    window = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    b.operator("CONV_2D", [x, w, bias], y, **window)
    return b.build([x], [y]), data


@pytest.mark.parametrize("seed", range(5))
def test_convolution(seed: int) -> None:
    random = np.random.default_rng(seed)
    content, data = network(random)
    graph = run_passes(read_bytes(content, "int4"), PROFILES["litert"])
    np.testing.assert_array_equal(graph.tensor(graph.nodes[0].inputs[1]).data, data)
    litert = LiteRt(content)
    for _ in range(3):
        image = random.integers(-128, 128, (1, 5, 4, 3)).astype(np.int8)
        (got,) = run_outputs(graph, [image], PROFILES["litert"])
        np.testing.assert_array_equal(got, litert.run([image])[0])


def test_activations_of_4_bits_are_refused() -> None:
    b = Builder()
    x = b.tensor((1, 4), "int4", scale=0.5)
    y = b.tensor((1, 4), "int4", scale=0.5)
    b.operator("RESHAPE", [x, b.constant([1, 4])], y)
    with pytest.raises(ModelError, match="only constants"):
        read_bytes(b.build([x], [y]), "m")
