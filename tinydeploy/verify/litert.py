"""Turn input arrays into LiteRT's outputs, with its reference kernels: the independent check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tinydeploy.errors import UsageError

Array = NDArray[Any]


class LiteRt:
    """Run a .tflite file with BUILTIN_REF, never with an optimised or delegated kernel."""

    def __init__(self, model: bytes | Path) -> None:
        """Load a model; raises UsageError without the package, ValueError if LiteRT refuses it."""
        interpreter, resolver = _interpreter()
        content = model.read_bytes() if isinstance(model, Path) else model
        self._interpreter = interpreter(
            model_content=content, experimental_op_resolver_type=resolver, num_threads=1
        )
        self._interpreter.allocate_tensors()
        self._inputs = [d["index"] for d in self._interpreter.get_input_details()]
        self._outputs = [d["index"] for d in self._interpreter.get_output_details()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs for one sample, in the model's types and shapes."""
        for index, array in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _interpreter() -> tuple[Any, Any]:
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter, OpResolverType
        except ImportError:
            raise UsageError(
                "LiteRT is not installed",
                "comparing with it needs the package ai-edge-litert",
                "pip install 'tinydeploy[litert]'",
            ) from None
    return Interpreter, OpResolverType.BUILTIN_REF
