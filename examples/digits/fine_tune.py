"""Turn the float digits network into one with weights of few bits, by training it on.

Packages needed: those of ``train.py`` and tinydeploy itself. Usage::

    python examples/digits/fine_tune.py --bits 2 --epochs 12 --output digits_2bit.tdm

Prints the accuracy on the 200 held-out samples before and after; some minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from train import BATCH, SEED, Samples, augmented_batches, load_split

from tinydeploy.importers import read_model
from tinydeploy.numerics.profile import PROFILES
from tinydeploy.ops.execute import run_outputs
from tinydeploy.quantize.measure import to_integers
from tinydeploy.quantize.quantize import Quantized, Settings, quantize
from tinydeploy.training import export, prepare

CALIBRATION_SAMPLES = 64


def accuracy(quantized: Quantized, samples: Samples) -> float:
    """Return the fraction of images that the integer reference reads right."""
    graph, correct = quantized.model, 0
    for image, label in zip(samples.images, samples.labels, strict=True):
        (scores,) = run_outputs(graph, to_integers(graph, [image[None]]), PROFILES["litert"])
        correct += int(scores.argmax() == label)
    return correct / len(samples.labels)


def main() -> None:
    """Quantise, train on, and write the integer network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, choices=(2, 4, 8), default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("digits_trained.tdm"))
    options = parser.parse_args()
    tf.keras.utils.set_random_seed(SEED)

    split, settings = load_split(), Settings(weight_bits=options.bits)
    graph = read_model(Path(__file__).with_name("digits_float.tflite"))
    calibration = split.train.images[:CALIBRATION_SAMPLES]
    before = quantize(graph, [[image[None]] for image in calibration], settings)
    print(f"quantised: {accuracy(before, split.test):.4f}")

    student = prepare(graph, calibration, settings)
    steps = len(split.train.labels) // BATCH
    schedule = tf.keras.optimizers.schedules.CosineDecay(options.rate, options.epochs * steps)
    optimizer = tf.keras.optimizers.Adam(schedule)
    optimizer.build(student.trainable_variables)  # else TensorFlow builds its graph twice
    student.compile(optimizer, "sparse_categorical_crossentropy")
    batches = augmented_batches(split.train, np.random.default_rng(SEED))
    student.fit(batches, epochs=options.epochs, steps_per_epoch=steps, verbose=2)

    trained = export(student)
    print(f"trained: {accuracy(trained, split.test):.4f}")
    options.output.write_bytes(trained.archive())


if __name__ == "__main__":
    main()
