"""Write one small network as .keras, .h5, .tflite, .onnx and SavedModel, and Lambda layers.

Needs the extras onnx and tensorflow. Weights are random, from a fixed seed; the .onnx holds them
in its own order (NCHW, and features of the dense layer in the order C, H, W)::

    python tests/models/make_same_network.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIZE, CLASSES = 16, 5


def keras_network(seed: int = 0) -> Any:
    """Return [1, 16, 16, 3] -> [1, 5]: BN, ReLU6, depthwise, residual, pool, flatten, softmax."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3), name="image")

    def normalised(x: Any, number: int, *, activate: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=1e-3, name=f"bn{number}")(x)
        return layers.ReLU(6.0, name=f"relu{number}")(x) if activate else x

    x = layers.Conv2D(8, 3, 2, "same", use_bias=False, name="conv0")(image)
    skip = x = normalised(x, 0)
    x = layers.DepthwiseConv2D(3, 1, "same", use_bias=False, name="conv1")(x)
    x = normalised(x, 1)
    x = layers.Conv2D(8, 1, use_bias=False, name="conv2")(x)
    x = layers.Add(name="add")([skip, normalised(x, 2, activate=False)])
    x = layers.Conv2D(12, 3, 2, "same", name="conv3")(x)
    x = layers.ReLU(name="relu3")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="dense")(x)
    model = keras.Model(image, x, name="same")
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "BatchNormalization":
            count = layer.gamma.shape[0]
            layer.set_weights([
                rng.uniform(0.6, 1.4, count), rng.normal(0, 0.3, count),
                rng.normal(0, 0.2, count), rng.uniform(0.5, 1.5, count),
            ])  # fmt: skip
        elif layer.weights:
            fan = int(np.prod(layer.weights[0].shape[:-1]))
            fan = 9 if kind == "DepthwiseConv2D" else fan
            layer.set_weights([
                rng.normal(0, np.sqrt(2 / fan) if len(w.shape) > 1 else 0.1, w.shape)
                for w in layer.weights
            ])  # fmt: skip
    return model


def onnx_network(model: Any) -> onnx.ModelProto:
    """Return the network with the weights of the Keras model, as PyTorch would lay it out."""
    nodes, initializers = [], []

    def weight(name: str, values: Any) -> str:
        array = np.ascontiguousarray(values, np.float32)
        initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(kind: str, inputs: list[str], out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def conv(x: str, name: str, **attributes: Any) -> str:
        filters, *bias = model.get_layer(name).get_weights()
        # Keras: height, width, in, out; depthwise filters: height, width, channel, multiplier.
        order = (2, 3, 0, 1) if "group" in attributes else (3, 2, 0, 1)
        names = [weight(f"{name}.weight", filters.transpose(order))]
        names += [weight(f"{name}.bias", b) for b in bias]
        return node("Conv", [x, *names], name, kernel_shape=filters.shape[:2], **attributes)

    def normalised(x: str, number: int) -> str:
        values = model.get_layer(f"bn{number}").get_weights()
        names = [weight(f"bn{number}.{k}", v) for k, v in enumerate(values)]
        return node("BatchNormalization", [x, *names], f"bn{number}", epsilon=1e-3)

    limits = [weight("zero", np.float32(0)), weight("six", np.float32(6))]
    x = conv("image", "conv0", strides=[2, 2], pads=[0, 0, 1, 1])
    skip = x = node("Clip", [normalised(x, 0), *limits], "relu0")
    x = conv(x, "conv1", group=8, pads=[1, 1, 1, 1])
    x = node("Clip", [normalised(x, 1), *limits], "relu1")
    x = node("Add", [skip, normalised(conv(x, "conv2"), 2)], "add")
    x = node("Relu", [conv(x, "conv3", strides=[2, 2], pads=[0, 0, 1, 1])], "relu3")
    x = node("AveragePool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = node("Flatten", [x], "flatten")
    matrix, bias = model.get_layer("dense").get_weights()
    matrix = matrix.reshape(2, 2, 12, CLASSES).transpose(2, 0, 1, 3).reshape(-1, CLASSES)
    x = node("Gemm", [x, weight("dense.weight", matrix.T), weight("dense.bias", bias)], "dense",
             transB=1)  # fmt: skip
    node("Softmax", [x], "shares", axis=-1)
    graph = helper.make_graph(
        nodes, "same",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, ["batch", CLASSES])],
        initializers,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def main() -> None:
    model = keras_network()
    model.save(HERE / "same.keras")
    model.save(HERE / "same.h5")
    model.export(HERE / "same_saved_model", verbose=False)
    dynamic = tf.lite.TFLiteConverter.from_saved_model(str(HERE / "same_saved_model")).convert()
    (HERE / "same_dynamic.tflite").write_bytes(dynamic)
    single = keras.Input((SIZE, SIZE, 3), batch_size=1, name="image")
    fixed = keras.Model(single, model(single), name="same")
    converted = tf.lite.TFLiteConverter.from_keras_model(fixed).convert()
    (HERE / "same.tflite").write_bytes(converted)
    half = tf.lite.TFLiteConverter.from_keras_model(fixed)
    half.optimizations = [tf.lite.Optimize.DEFAULT]
    half.target_spec.supported_types = [tf.float16]
    (HERE / "same_float16.tflite").write_bytes(half.convert())
    (HERE / "same.onnx").write_bytes(onnx_network(model).SerializeToString())
    unsafe = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    unsafe.save(HERE / "lambda.keras")
    unsafe.save(HERE / "lambda.h5")


if __name__ == "__main__":
    main()
