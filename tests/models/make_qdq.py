"""Write same_qdq.onnx and same_qdq.npz: same.onnx quantised by ONNX Runtime, and what it computes.

Needs the package onnxruntime (1.20 or later), which nothing else here does::

    python tests/models/make_qdq.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

HERE = Path(__file__).parent


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Give eight images to calibrate with."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = iter([rng.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(8)])

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image}


def main() -> None:
    out = str(HERE / "same_qdq.onnx")
    with TemporaryDirectory() as folder:
        ready = str(Path(folder) / "ready.onnx")
        quant_pre_process(str(HERE / "same.onnx"), ready, skip_symbolic_shape=True)
        quantize_static(
            ready, out, Images(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
    session = InferenceSession(out)
    images = np.random.default_rng(5).normal(size=(4, 3, 16, 16)).astype(np.float32)
    shares = [session.run(None, {"image": image[None]})[0] for image in images]
    np.savez(HERE / "same_qdq.npz", in0=images, out0=np.concatenate(shares))


if __name__ == "__main__":
    main()
