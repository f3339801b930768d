"""Turn a Keras model or SavedModel into a float .tflite file: arguments are input and output.

A program of its own, see keras.py; the last line on stderr says what failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(source: Path) -> bytes:
    """Return the model as a float .tflite file, with a batch of 1."""
    return bytes((of_folder(source) if source.is_dir() else of_file(source)).convert())


def of_folder(source: Path) -> Any:
    """Return a converter of a SavedModel's signature for serving."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(source))
    if "serving_default" not in loaded.signatures:
        raise ValueError("the SavedModel has no signature 'serving_default'")
    signature = loaded.signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    specs = {k: tf.TensorSpec(fixed(s.shape, s.name), s.dtype, s.name) for k, s in inputs.items()}
    function = tf.function(lambda **values: signature(**values)).get_concrete_function(**specs)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], loaded)


def of_file(source: Path) -> Any:
    """Return a converter of a .keras or .h5 file."""
    import keras
    import tensorflow as tf

    model = keras.models.load_model(str(source), compile=False, safe_mode=True)
    refuse_code(model)
    inputs = [
        keras.Input(batch_shape=fixed(x.shape, x.name), dtype=x.dtype, name=x.name)
        for x in model.inputs
    ]
    single = keras.Model(inputs, model(inputs[0] if len(inputs) == 1 else inputs))
    return tf.lite.TFLiteConverter.from_keras_model(single)


def fixed(shape: Any, name: str) -> list[int]:
    """Return a shape with the batch 1; raises ValueError where another size is unknown."""
    sizes = [1 if k == 0 and size is None else size for k, size in enumerate(shape)]
    if None in sizes:
        raise ValueError(f"input '{name}' has an axis of unknown size: {sizes}")
    return sizes


def refuse_code(model: Any) -> None:
    """Raise ValueError for a model with a Lambda layer, however it was saved."""
    for layer in model._flatten_layers():
        if type(layer).__name__ == "Lambda":
            raise ValueError(f"the Lambda layer '{layer.name}' is code of its own")


if __name__ == "__main__":
    try:
        Path(sys.argv[2]).write_bytes(convert(Path(sys.argv[1])))
    except Exception as error:  # whatever TensorFlow makes of a hostile file
        text = " ".join(str(error).split())
        print(f"\n{type(error).__name__}: {text[:160]}", file=sys.stderr)
        sys.exit(1)
