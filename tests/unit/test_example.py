"""Check that the committed digits example is what its README says it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"
SAMPLES = 200
# Measured with the reference kernels of ai-edge-litert 2.3.0; one sample of slack.
LEAST_CORRECT = 197 - 1
ALLOWED_OPERATORS = {
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "ADD",
    "AVERAGE_POOL_2D",
    "MAX_POOL_2D",
    "MEAN",
    "PAD",
    "RESHAPE",
    "SOFTMAX",
}


@pytest.fixture(scope="module")
def held_out() -> dict[str, NDArray[Any]]:
    with np.load(EXAMPLE / "digits_test.npz", allow_pickle=False) as archive:
        return dict(archive)


def open_model(name: str) -> Any:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        str(EXAMPLE / name),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    return interpreter


def count_correct(interpreter: Any, images: NDArray[Any], labels: NDArray[Any]) -> int:
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    correct = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(source, image[np.newaxis])
        interpreter.invoke()
        correct += int(np.argmax(interpreter.get_tensor(sink)) == label)
    return correct


def test_samples_have_the_documented_shapes_and_types(held_out: dict[str, NDArray[Any]]) -> None:
    found = {name: (array.shape, array.dtype.name) for name, array in held_out.items()}
    assert found == {
        "in0": ((SAMPLES, 28, 28, 1), "int8"),
        "labels": ((SAMPLES,), "int64"),
        "float0": ((SAMPLES, 28, 28, 1), "float32"),
    }


def test_every_digit_occurs_equally_often(held_out: dict[str, NDArray[Any]]) -> None:
    assert np.bincount(held_out["labels"]).tolist() == [SAMPLES // 10] * 10


def test_samples_are_distinct_images_that_use_the_whole_range(
    held_out: dict[str, NDArray[Any]],
) -> None:
    flat = held_out["float0"].reshape(SAMPLES, -1)
    assert len(np.unique(flat, axis=0)) == SAMPLES
    assert (flat.min(), flat.max()) == (0.0, 1.0)


def test_in0_is_float0_quantised_by_the_model_input(held_out: dict[str, NDArray[Any]]) -> None:
    details = open_model("digits_int8.tflite").get_input_details()[0]
    scale, zero_point = details["quantization"]
    quantised = np.clip(np.rint(held_out["float0"] / scale) + zero_point, -128, 127)
    np.testing.assert_array_equal(held_out["in0"], quantised.astype(np.int8))


def test_int8_model_is_int8_throughout_with_batch_one() -> None:
    interpreter = open_model("digits_int8.tflite")
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert source["shape_signature"].tolist() == [1, 28, 28, 1]
    assert sink["shape_signature"].tolist() == [1, 10]
    # int32 holds the biases and the axes of MEAN.
    types = {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details()}
    assert types == {"int8", "int32"}
    assert (source["dtype"], sink["dtype"]) == (np.int8, np.int8)


def test_int8_model_exercises_the_operators_it_should() -> None:
    details = open_model("digits_int8.tflite")._get_ops_details()
    operators = [operator["op_name"] for operator in details]
    assert set(operators) <= ALLOWED_OPERATORS
    assert operators.count("ADD") >= 2
    assert operators.count("DEPTHWISE_CONV_2D") >= 3
    assert operators[-3:] == ["MEAN", "FULLY_CONNECTED", "SOFTMAX"]


@pytest.mark.parametrize(
    ("name", "samples"), [("digits_float.tflite", "float0"), ("digits_int8.tflite", "in0")]
)
def test_accuracy_is_the_documented_one(
    name: str, samples: str, held_out: dict[str, NDArray[Any]]
) -> None:
    correct = count_correct(open_model(name), held_out[samples], held_out["labels"])
    assert correct >= LEAST_CORRECT
