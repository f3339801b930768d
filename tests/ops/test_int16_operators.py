"""Check operators on int16 activations: LiteRT == reference == generated C, rows, shapes, canaries.

The models are those of op_models/, with int16 in place of int8.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from test_every_operator import DRAWN, check_all
from wide_builder import WideBuilder

OPERATORS = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
    "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL", "PAD", "QUANTIZE", "RESHAPE",
    "RESIZE_NEAREST_NEIGHBOR", "SOFTMAX", "STRIDED_SLICE", "SUB", "TRANSPOSE",
)  # fmt: skip
SOME = 5
ROUNDS = 10


@pytest.fixture
def models(op: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    found = importlib.import_module(f"op_models.{op.lower()}")
    for name, module in list(sys.modules.items()):
        if name.startswith("op_models.") and hasattr(module, "Builder"):
            monkeypatch.setattr(module, "Builder", WideBuilder)
    yield found


@pytest.mark.parametrize("op", OPERATORS)
def test_some_chosen_models(op: str, models: ModuleType, capfd: Any) -> None:
    chosen = list(models.fixed())
    check_all(op, chosen[:: -(-len(chosen) // SOME)], 0, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPERATORS)
def test_chosen_models(op: str, models: ModuleType, capfd: Any) -> None:
    check_all(op, list(models.fixed()), 0, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_random_models(op: str, seed: int, models: ModuleType, capfd: Any) -> None:
    random = np.random.default_rng([seed, OPERATORS.index(op)])
    check_all(op, [models.drawn(random) for _ in range(DRAWN)], seed, capfd)
