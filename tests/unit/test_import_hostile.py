"""Check that no file, however damaged or hostile, ends in anything but a ModelError."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from builder import Builder
from hostile import LITERT, SECONDS, convolution, convolutions, survive, unary
from hostlib import sources_of

from tinydeploy.errors import ModelError
from tinydeploy.importers.tflite import read_file
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers

MEMORY = 256 << 20


def reshapers() -> bytes:
    """Return float border, pad, pool, transpose, slice, concatenation, resize, reshape."""
    b = Builder()

    def same(shape: tuple[int, ...]) -> int:
        return b.tensor(shape, scale=0.05, zero=-3)

    x, q = b.tensor((1, 4, 4, 2), "float32", None), same((1, 4, 4, 2))
    b.operator("QUANTIZE", [x], q)
    p = same((1, 6, 5, 2))
    b.operator("PAD", [q, b.constant([[0, 0], [1, 1], [0, 1], [0, 0]])], p)
    a = same((1, 3, 2, 2))
    pool = {"StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2, "Padding": 1}
    b.operator("MAX_POOL_2D", [p], a, **pool)
    t = same((1, 2, 3, 2))
    b.operator("TRANSPOSE", [a, b.constant([0, 2, 1, 3])], t)
    s = same((1, 2, 2, 2))
    begin, end, stride = ([0, 0, 0, 0], [1, 2, 3, 2], [1, 1, 2, 1])
    b.operator("STRIDED_SLICE", [t, *(b.constant(v) for v in (begin, end, stride))], s)
    c = same((1, 2, 2, 4))
    b.operator("CONCATENATION", [s, s], c, Axis=3)
    r = same((1, 4, 4, 4))
    b.operator("RESIZE_NEAREST_NEIGHBOR", [c, b.constant([4, 4])], r)
    v = same((1, 64))
    b.operator("RESHAPE", [r, b.constant([1, -1])], v)
    g = b.tensor((1, 64), scale=1 / 256, zero=-128)
    b.operator("LOGISTIC", [v], g)
    y = b.tensor((1, 64), "float32", None)
    b.operator("DEQUANTIZE", [g], y)
    return b.build([x], [y])


VALID = {"convolutions": convolutions(), "reshapers": reshapers()}


@pytest.mark.parametrize("name", VALID)
def test_the_models_are_valid(name: str) -> None:
    assert survive(VALID[name]) is not None


@pytest.mark.parametrize("name", VALID)
def test_truncated_files(name: str) -> None:
    content = VALID[name]
    for length in (*range(0, 64), *range(64, len(content), 23)):
        survive(content[:length])


def mutants(name: str, kind: str, count: int) -> Iterator[bytes]:
    random = np.random.default_rng([len(name), len(kind)])
    content = np.frombuffer(VALID[name], np.uint8)
    interesting = [
        0,
        1,
        2,
        4,
        0x7F,
        0x80,
        0xFF,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        1 << 16,
        1 << 24,
    ]
    for _ in range(count):
        mutant = content.copy()
        if kind == "bytes":
            for _ in range(random.integers(1, 4)):
                mutant[random.integers(len(mutant))] = random.integers(256)
        elif kind == "bits":
            for _ in range(random.integers(1, 4)):
                mutant[random.integers(len(mutant))] ^= 1 << random.integers(8)
        else:
            at = 4 * random.integers(len(mutant) // 4)
            word = random.choice(interesting) if random.random() < 0.7 else random.integers(1 << 32)
            mutant[at : at + 4] = np.frombuffer(np.uint32(word).tobytes(), np.uint8)
        yield mutant.tobytes()


@pytest.mark.parametrize("kind", ["bytes", "bits", "words"])
@pytest.mark.parametrize("name", VALID)
def test_mutated_files(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    accepted = 0
    for mutant in mutants(name, kind, 10_000 if request.config.getoption("--slow") else 350):
        accepted += survive(mutant) is not None
    assert accepted > 0  # otherwise the later stages were never reached


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 7, b"\0" * 64, b"\0\0\0\0TFL3",
                                     b"\xff" * 4 + b"TFL3" + b"\xff" * 64,
                                     b"PK\3\4" + b"\0" * 99])  # fmt: skip
def test_files_that_are_no_models(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        read_file(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.tflite", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(ModelError):
            read_file(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tflite")
    began = time.perf_counter()
    with pytest.raises(ModelError):
        read_file(tmp_path / "pipe.tflite")
    assert time.perf_counter() - began < SECONDS


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.tflite"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    with pytest.raises(ModelError, match="too large"):
        read_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


MEMORY_CASES: dict[str, Callable[[], bytes]] = {
    "dilation": lambda: convolution(
        options={"DilationHFactor": 1 << 14, "DilationWFactor": 1 << 14}
    ),
    "shape": lambda: convolution(shape=(1, 1 << 13, 1 << 13, 1), weights=(3, 2, 2, 1)),
    "pad": lambda: unary("PAD", (1, 4, 4, 1), [[[0, 0], [9000, 0], [9000, 0], [0, 0]]]),
    "resize": lambda: unary("RESIZE_NEAREST_NEIGHBOR", (1, 1, 1, 1), [[16384, 16384]]),
}


@pytest.mark.parametrize("case", MEMORY_CASES)
def test_memory_stays_small(case: str, tmp_path: Path) -> None:
    """Import under a limit on the address space, in a process of its own."""
    path = tmp_path / "model.tflite"
    path.write_bytes(MEMORY_CASES[case]())
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from tinydeploy.errors import ModelError\n"
        "from tinydeploy.importers.tflite import read_file\n"
        "from tinydeploy.numerics.profile import PROFILES\n"
        "from tinydeploy.passes import run_passes\n"
        "import tinydeploy.codegen, tflite\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {MEMORY},) * 2)\n"
        "try:\n    run_passes(read_file(Path(sys.argv[1])), PROFILES['litert'])\n"
        "except ModelError as error:\n    assert 'MemoryError' not in error.why\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_undecodable_file_names(tmp_path: Path) -> None:
    path = tmp_path / "bad\udcff\udc80name.tflite"
    path.write_bytes(VALID["convolutions"])
    graph = run_passes(read_file(path), LITERT)
    assert graph.name.isascii()
    assert graph.digest()
    sources_of(graph, plan_layers(graph, "greedy"), LITERT)
