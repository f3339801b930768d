"""Check that networks trained with their integers' rounding are what the integers compute."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import tinydeploy
from hostlib import compile_all
from networks import float_network
from numpy.typing import NDArray

from tinydeploy.errors import ModelError, UsageError
from tinydeploy.export import tflite as tflite_file
from tinydeploy.importers import tdm, tflite
from tinydeploy.ir import DType, Graph, Node, Tensor
from tinydeploy.ir.graph import constant
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops import (
    Call,
    _elementwise,
    _pool,
    concatenation,
    fully_connected,
    gelu,
    leaky_relu,
    mean,
    op_named,
    pad,
    reshape,
    resize_nearest_neighbor,
    softmax,
    strided_slice,
    transpose,
)
from tinydeploy.ops._window import Window
from tinydeploy.ops.execute import run_floats, run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.quantize.measure import to_integers
from tinydeploy.quantize.quantize import Quantized, Settings, quantize
from tinydeploy.training import export, prepare, source
from tinydeploy.verify.litert import LiteRt

pytestmark = pytest.mark.skipif(not find_spec("tensorflow"), reason="the extra is missing")

Array = NDArray[Any]
LITERT = PROFILES["litert"]
ROOT = Path(__file__).parents[2]
DIGITS = np.load(ROOT / "examples" / "digits" / "digits_test.npz")


def integer_outputs(graph: Graph, sample: list[Array]) -> list[Array]:
    """Return what the integers mean, in steps of the outputs' scales."""
    stored = run_outputs(graph, to_integers(graph, sample), LITERT)
    return [v.astype(np.int64) - graph.tensors[o].zero_point
            for v, o in zip(stored, graph.outputs, strict=True)]  # fmt: skip


def differences(model: Any, quantized: Quantized, data: list[Array]) -> Array:
    """Return how far the model in training is from its integers, in steps, over all outputs."""
    graph, found = quantized.model, model(data if len(data) > 1 else data[0], training=False)
    real = [np.asarray(v) for v in (found if isinstance(found, (list, tuple)) else [found])]
    apart = []
    for k in range(len(data[0])):
        for own, o, got in zip(
            integer_outputs(graph, [a[k : k + 1] for a in data]), graph.outputs, real, strict=True
        ):
            steps = np.rint(got[k : k + 1] / graph.tensors[o].scale).astype(np.int64)
            apart.append(np.abs(steps - own.reshape(steps.shape)).reshape(-1))
    return np.concatenate(apart)


def assert_equal(model: Any, quantized: Quantized, data: list[Array]) -> None:
    apart = differences(model, quantized, data)
    assert apart.max() <= 2, apart.max()
    assert (apart == 0).mean() >= 0.99, (apart == 0).mean()


class Net:
    """Collect the nodes of a float graph; shapes are the operators' own."""

    def __init__(self, *inputs: tuple[int, ...]) -> None:
        self.random = np.random.default_rng(4)
        self.tensors = [Tensor(f"in{k}", s, DType.FLOAT32) for k, s in enumerate(inputs)]
        self.inputs, self.nodes = tuple(range(len(inputs))), list[Node]()

    def weights(self, *shape: int, high: float = 0.5) -> int:
        data = constant(self.random.uniform(-high, high, shape).astype(np.float32))
        self.tensors.append(Tensor(f"w{len(self.tensors)}", shape, DType.FLOAT32, None, data))
        return len(self.tensors) - 1

    def add(self, op: str, attributes: Any, *inputs: int) -> int:
        out = len(self.tensors)
        node = Node(f"n{len(self.nodes)}", op, inputs, (out,), attributes)
        self.tensors.append(Tensor(f"t{out}", (), DType.FLOAT32))
        (shape,) = op_named(op).shape(Call(self.graph(), node))
        self.tensors[out] = Tensor(f"t{out}", tuple(shape), DType.FLOAT32)
        self.nodes.append(node)
        return out

    def graph(self, *outputs: int) -> Graph:
        return Graph("net", tuple(self.tensors), tuple(self.nodes), self.inputs, outputs)


def image_network() -> Graph:
    """Return a network with every kind of window, operand and moved value, and three outputs."""
    net = Net((1, 9, 8, 4), (1, 9, 8, 4))
    a = net.add(
        "CONV_2D",
        Window(1, 2, 1, 1, "SAME", "RELU6"),
        0,
        net.weights(8, 3, 3, 2),
        net.weights(8),
    )
    b = net.add("DEPTHWISE_CONV_2D", Window(1, 2, 1, 1, "SAME", "RELU"), 1,
                net.weights(1, 2, 3, 8))  # fmt: skip
    b = net.add("DEPTHWISE_CONV_2D", Window(1, 1, 2, 1, "SAME", "NONE"), b,
                net.weights(1, 3, 3, 8), net.weights(8))  # fmt: skip
    c = net.add("ADD", _elementwise.Attributes("RELU"), a, b)
    c = net.add("CONV_2D", Window(2, 2, 1, 1, "VALID", "NONE", 1, 2, 0, 1), c,
                net.weights(8, 2, 2, 8))  # fmt: skip
    gate = net.add("MEAN", mean.Attributes((1, 2), True), c)
    gate = net.add("LOGISTIC", None, gate)
    c = net.add("MUL", _elementwise.Attributes("NONE"), c, gate)
    c = net.add("SUB", _elementwise.Attributes("NONE"), c, net.weights(8))
    c = net.add("HARD_SWISH", None, c)
    d = net.add("AVERAGE_POOL_2D", _pool.Attributes(Window(1, 1, 1, 1, "SAME", "NONE"), 2, 2), c)
    e = net.add("MAX_POOL_2D", _pool.Attributes(Window(1, 1, 1, 1, "SAME", "NONE"), 3, 3), c)
    f = net.add("CONCATENATION", concatenation.Attributes(3), d, e)
    f = net.add("PAD", pad.Attributes((0, 1, 0, 0), (0, 0, 2, 0)), f)
    _, height, width, channels = net.tensors[f].shape
    f = net.add(
        "STRIDED_SLICE",
        strided_slice.Attributes((0, 0, 1, 0), (1, 2, 1, 1),
                                 (1, (height + 1) // 2, width - 1, channels), ()),
        f,
    )  # fmt: skip
    f = net.add("RESIZE_NEAREST_NEIGHBOR", resize_nearest_neighbor.Attributes(5, 5, False, True), f)
    f = net.add("TRANSPOSE", transpose.Attributes((0, 3, 1, 2)), f)
    f = net.add("RESHAPE", reshape.Attributes((1, 16, 25)), f)
    f = net.add("FULLY_CONNECTED", fully_connected.Attributes("NONE", True), f,
                net.weights(4, 25), net.weights(4))  # fmt: skip
    leaky = net.add("LEAKY_RELU", leaky_relu.Attributes(0.1), f)
    g = net.add("MUL", _elementwise.Attributes("NONE"), leaky, net.weights(1, 4))
    h = net.add("GELU", gelu.Attributes(False), net.add("ELU", None, f))
    return net.graph(g, net.add("TANH", None, h), net.add("SOFTMAX", softmax.Attributes(1.0), f))


def noise(*shapes: tuple[int, ...]) -> list[Array]:
    random = np.random.default_rng(2)
    return [random.normal(size=s).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(weight_bits=4, node_bits={0: 8, 4: 2}, ranges="mse", equalize=True)],
    ids=["8 bits", "mixed"],
)
def test_every_operator_computes_as_its_integers(settings: Settings) -> None:
    data = noise((12, 9, 8, 4), (12, 9, 8, 4))
    model = prepare(image_network(), data, settings)
    assert_equal(model, export(model), data)


def test_int16_activations() -> None:
    """The integers' multipliers have 15 bits there: the last of 16 bits differ."""
    graph, data = tflite.read_bytes(float_network(), "net"), noise((12, 8, 8, 3))
    graph = graph.replace(nodes=graph.nodes[:-1], outputs=graph.nodes[-2].outputs)
    model = prepare(graph, data, Settings(activations=DType.INT16))
    assert differences(model, export(model), data).max() <= 8


def test_gradients_reach_every_variable() -> None:
    """Straight through rounding, not through clamps, to weights, biases, scales and ranges."""
    import tensorflow as tf

    data = noise((16, 8, 8, 3))
    model = prepare(tflite.read_bytes(float_network(), "net"), data, Settings(weight_bits=4))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(data[0], training=True) - 1.0) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    names = sorted(v.name for v in model.trainable_variables)
    assert names == ["bias"] * 3 + ["factors"] * (3 + 6) + ["kernel"] * 3
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


def test_probabilities_are_open_while_training_only() -> None:
    data = noise((16, 8, 8, 3))
    model = prepare(tflite.read_bytes(float_network(), "net"), data)
    steps = {t: np.asarray(model(data[0], training=t)) * 256 for t in (True, False)}
    assert np.array_equal(steps[False], np.rint(steps[False]))
    assert not np.array_equal(steps[True], np.rint(steps[True]))
    assert np.abs(steps[True] - steps[False]).max() <= 0.5


# What is tested is training, not reading: images are those trained on, moved by a pixel.
IMAGES, LABELS = DIGITS["float0"], DIGITS["labels"]
MOVED = [np.roll(IMAGES, (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
CALIBRATION, TEST = IMAGES[:40], slice(0, 100)


@pytest.fixture(scope="module")
def digits() -> Any:
    """Return a Keras model that reads digits, with normalisation that folds into its weights."""
    source.require_tensorflow()
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(8, 3, 2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(24, 1, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.AveragePooling2D(2, padding="same"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return trained(model, 6, 4e-3)


def trained(model: Any, epochs: int, rate: float) -> Any:
    import keras

    keras.utils.set_random_seed(6)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(model.trainable_variables)  # else TensorFlow builds its graph twice
    model.compile(optimizer, "sparse_categorical_crossentropy")
    images, labels = np.concatenate(MOVED), np.tile(LABELS, len(MOVED))
    model.fit(images, labels, batch_size=50, epochs=epochs, verbose=0)
    return model


def accuracy(quantized: Quantized) -> float:
    graph = quantized.model
    found = [integer_outputs(graph, [i[None]])[0].argmax() for i in IMAGES[TEST]]
    return float((np.array(found) == LABELS[TEST]).mean())


@pytest.fixture(scope="module")
def recovered(digits: Any) -> tuple[Any, Quantized, dict[str, float]]:
    """Return the network trained on with weights of 2 bits, and accuracies before and after."""
    model = prepare(digits, CALIBRATION, Settings(weight_bits=2))
    graph, calibration = model.quantization_origin.graph, model.quantization_origin.samples
    figures = {
        "float": (np.asarray(digits(IMAGES[TEST])).argmax(1) == LABELS[TEST]).mean(),
        "post": accuracy(quantize(graph, calibration, Settings(weight_bits=2))),
        "before": accuracy(export(model)),
    }
    quantized = export(trained(model, 3, 2e-3))
    return model, quantized, {**figures, "after": accuracy(quantized)}


def test_training_recovers_what_two_bits_lose(recovered: Any) -> None:
    model, quantized, figures = recovered
    assert figures["after"] >= max(figures["before"] + 0.15, figures["post"]), figures
    assert figures["after"] >= figures["float"] - 0.15, figures
    assert_equal(model, quantized, [IMAGES[TEST]])


def test_what_was_trained_runs_elsewhere(recovered: Any) -> None:
    """In C on this computer and in LiteRT, bit for bit; the .tdm holds the same network."""
    _, quantized, _ = recovered
    graph = quantized.model
    again = tdm.read_bytes(quantized.archive())
    assert again.replace(source_sha256=graph.source_sha256).digest() == graph.digest()
    (host,) = compile_all([run_passes(graph, LITERT)], LITERT)
    litert = LiteRt(tflite_file.to_bytes(graph))
    for image in IMAGES[TEST][:10]:
        stored = to_integers(graph, [image[None]])
        (expected,) = run_outputs(graph, stored, LITERT)
        np.testing.assert_array_equal(host.run(stored)[0], expected)
        np.testing.assert_array_equal(litert.run(stored)[0], expected)


@pytest.mark.slow
@pytest.mark.qemu
def test_what_was_trained_runs_on_an_emulated_board(recovered: Any, tmp_path: Path) -> None:
    _, quantized, _ = recovered
    path, data = tmp_path / "trained.tdm", tmp_path / "data.npz"
    path.write_bytes(quantized.archive())
    np.savez(data, in0=IMAGES[TEST][:4])
    done = tinydeploy("deploy", path, "-t", "mps2-an386", "--data", data, "--json")
    assert json.loads(done.stdout)["verify"]["bit_exact"]


def test_saved_weights_go_on_where_they_were(recovered: Any, tmp_path: Path) -> None:
    model, quantized, _ = recovered
    origin = model.quantization_origin
    model.save_weights(tmp_path / "trained.weights.h5")
    other = prepare(origin.graph, CALIBRATION, origin.settings)
    assert export(other).model.digest() != quantized.model.digest()
    other.load_weights(tmp_path / "trained.weights.h5")
    assert export(other).model.digest() == quantized.model.digest()


def test_inputs_and_outputs_keep_the_order_of_the_model() -> None:
    graph = image_network()
    sample = [a[:1] for a in noise((1, 9, 8, 4), (1, 9, 8, 4))]
    expected = [run_floats(graph, sample)[o] for o in graph.outputs]
    mixed = graph.replace(inputs=graph.inputs[::-1], outputs=graph.outputs[::-1])
    found = source.ordered(mixed, sample, expected)
    assert (found.inputs, found.outputs) == (graph.inputs, graph.outputs)
    with pytest.raises(ModelError, match="something else"):
        source.ordered(mixed, sample, [e + 1 for e in expected])


def small() -> Graph:
    return tflite.read_bytes(float_network(), "net")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((4, 8, 8), np.float32), r"wanted \[n, 8, 8, 3\]; found \[4, 8, 8\]"),
        ([np.zeros((4, 8, 8, 3))] * 2, "shapes"),
        (np.zeros((0, 8, 8, 3)), "no samples"),
        (np.full((4, 8, 8, 3), "x"), "not numbers"),
        (np.zeros((4, 8, 8, 3)), "never varies"),
    ],
)
def test_samples_that_do_not_fit(data: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        prepare(small(), data)


def test_what_cannot_be_trained() -> None:
    net, data = Net((1, 4, 4, 2)), noise((4, 4, 4, 2))
    with pytest.raises(ModelError, match="SQRT cannot be trained"):
        prepare(net.graph(net.add("SQRT", None, 0)), np.abs(data[0]))
    net = Net((1, 4, 4, 2))
    with pytest.raises(ModelError, match=r"first axis of 1.*\n.*\[4, 4, 2\]"):
        prepare(net.graph(net.add("RESHAPE", reshape.Attributes((4, 4, 2)), 0)), data)
    with pytest.raises(UsageError, match="neither codebooks"):
        prepare(small(), noise((4, 8, 8, 3)), Settings(weight_bits=4, codebooks=True))
    with pytest.raises(UsageError, match="no Keras model"):
        prepare("model.keras", data)
    with pytest.raises(UsageError, match="not made by prepare"):
        export(object())


def test_weights_that_training_has_ruined() -> None:
    model = prepare(small(), noise((4, 8, 8, 3)))
    layer = model.get_layer("0_conv_2d")
    layer.kernel.assign(layer.kernel * np.nan)
    with pytest.raises(ModelError, match="not finite"):
        export(model)


def test_a_lambda_layer_and_open_shapes_are_refused() -> None:
    source.require_tensorflow()
    import keras
    from keras import layers

    data = noise((4, 8, 8, 3))
    code = keras.Sequential([layers.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2)])
    with pytest.raises(ModelError, match="holds code"):
        prepare(code, data)
    with pytest.raises(ModelError, match="input shapes are not known"):
        prepare(keras.Sequential([layers.Input((None, None, 3)), layers.Conv2D(2, 1)]), data)
    with pytest.raises(UsageError, match="shapes"):
        prepare(keras.Sequential([layers.Input((8, 9, 3)), layers.Conv2D(2, 1)]), data)


def test_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="tinydeploy\\[tensorflow\\]"):
        prepare(small(), noise((4, 8, 8, 3)))
