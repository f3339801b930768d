"""Turn a Keras model or SavedModel into a float .tflite file: arguments are input and output.

A program of its own, see keras.py; the last line on stderr says what failed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(source: Path) -> bytes:
    """Return the model as a float .tflite file, with a batch of 1."""
    import tensorflow as tf

    if source.is_dir():
        converter: Any = tf.lite.TFLiteConverter.from_saved_model(str(source))
    else:
        import keras

        model = keras.models.load_model(str(source), compile=False, safe_mode=True)
        refuse_code(model)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
    return bytes(converter.convert())


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
