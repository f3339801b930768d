"""Check the generated C as text and as a program: reproducible, clean, self-contained, correct."""

from __future__ import annotations

import ctypes
import io
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builder import Builder
from hostlib import STRICT, compile_c
from numpy.typing import NDArray

from tinydeploy.codegen import Provenance, SourceTree, generate
from tinydeploy.codegen.render import real, values
from tinydeploy.importers.tflite import read_bytes, read_file
from tinydeploy.ir import Graph
from tinydeploy.numerics.fixedpoint import dequantize, quantize_float
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.ops.execute import run_outputs
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers

LITERT = PROFILES["litert"]
ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"


@cache
def digits() -> Graph:
    return run_passes(read_file(DIGITS / "digits_int8.tflite"), LITERT)


@cache
def samples() -> NDArray[np.int8]:
    with np.load(DIGITS / "digits_test.npz", allow_pickle=False) as archive:
        images: NDArray[np.int8] = archive["in0"][:12]
    return images


def sources(graph: Graph, profile: IntegerProfile = LITERT) -> SourceTree:
    plan = plan_layers(graph, profile=profile)
    command = "tinydeploy generate digits_int8.tflite"
    return generate(
        graph, plan, profile, Provenance(graph.name, graph.source_sha256, "host", command)
    ).sources


def written(graph: Graph, folder: Path) -> list[Path]:
    """Write the sources and return the C files that a user compiles."""
    tree = sources(graph)
    tree.write(folder)
    return [folder / path for path in tree if path.endswith(".c") and "firmware" not in path]


def operators() -> Graph:
    """Return a network with many operators, float borders and two outputs."""
    b = Builder()
    x, q = b.tensor((1, 5, 4, 2), "float32", None), b.tensor((1, 5, 4, 2), scale=0.05, zero=3)
    b.operator("QUANTIZE", [x], q)
    random = np.random.default_rng(0)
    c = b.tensor((1, 5, 4, 6), scale=0.2, zero=-1)
    w = b.constant(random.integers(-128, 128, (6, 3, 3, 2)), "int8", [0.01] * 6)
    window = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    bias = b.constant([-(2**31), 5, 6, 7, 8, 9], "int32", [0.0005] * 6)
    b.operator("CONV_2D", [q, w, bias], c, **window)
    s = b.tensor((1, 5, 4, 6), scale=0.2, zero=-1)
    b.operator("SUB", [c, b.tensor((6,), scale=0.1, data=[-128, 1, 2, 3, 4, 127])], s)
    t = b.tensor((1, 4, 5, 6), scale=0.2, zero=-1)
    b.operator("TRANSPOSE", [s, b.constant([0, 2, 1, 3])], t)
    r = b.tensor((1, 8, 10, 6), scale=0.2, zero=-1)
    b.operator("RESIZE_NEAREST_NEIGHBOR", [t, b.constant([8, 10])], r)
    k = b.tensor((1, 8, 10, 12), scale=0.2, zero=-1)
    b.operator("CONCATENATION", [r, r], k, Axis=3)
    m = b.tensor((1, 12), scale=0.1, zero=0)
    b.operator("MEAN", [k, b.constant([1, 2])], m)
    g = b.tensor((1, 12), scale=1 / 256, zero=-128)
    b.operator("LOGISTIC", [m], g)
    p = b.tensor((1, 12), scale=1 / 256, zero=-128)
    b.operator("SOFTMAX", [m], p, Beta=1.0)
    f = b.tensor((1, 12), "float32", None)
    b.operator("DEQUANTIZE", [p], f)
    return run_passes(read_bytes(b.build([x], [f, g]), "operators"), LITERT)


def empty() -> Graph:
    """Return a network without nodes: its input is its output."""
    b = Builder()
    x = b.tensor((1, 3))
    return run_passes(read_bytes(b.build([x], [x]), "empty"), LITERT)


GRAPHS = {"digits": digits, "operators": operators, "empty": empty}


def test_the_same_input_gives_the_same_bytes() -> None:
    for make in GRAPHS.values():
        one, two = sources(make()), sources(make())
        assert one.files == two.files and one.digest() == two.digest()
        assert one.zip() == two.zip()


def test_the_same_bytes_in_processes_with_other_hash_seeds() -> None:
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import test_codegen as t\n"
        "print([t.sources(make()).digest() for make in t.GRAPHS.values()])"
    )
    paths = [str(ROOT / "tests"), str(ROOT / "tests" / "unit")]
    digests = set()
    for seed in ("0", "4711"):
        result = subprocess.run(
            [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True,
            timeout=120, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        digests.add(result.stdout)
    assert digests == {f"{[sources(make()).digest() for make in GRAPHS.values()]}\n"}


def test_no_paths_and_no_times() -> None:
    for make in GRAPHS.values():
        for path, data in sources(make()).files:
            text = data.decode("ascii")
            assert str(ROOT) not in text and not re.search(r"/(home|tmp|usr|root)/", text), path
            assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d:\d\d", text), path
            assert "do not edit" in text or path.startswith("td_"), path
            assert text.endswith("\n") and "\t" not in text and "\r" not in text, path


def test_what_a_device_calls_the_model_follows_from_the_sources() -> None:
    made = generate(digits(), plan_layers(digits()), LITERT, Provenance("m", "", "host", "c"))
    assert len(made.digest) == 16
    numbers = ", ".join(map(str, made.digest))
    assert numbers in made.sources["firmware_model.c"].decode()
    other = generate(digits(), plan_layers(digits()), LITERT, Provenance("m", "", "host", "d"))
    assert other.digest != made.digest


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", GRAPHS)
def test_clean_under_strict_warnings(name: str, compiler: str, tmp_path: Path) -> None:
    for path in written(GRAPHS[name](), tmp_path):
        compile_c([path], tmp_path / "a.o", ["-O2", "-c", *STRICT], compiler)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("name", GRAPHS)
def test_compiles_as_cpp(name: str, compiler: str, tmp_path: Path) -> None:
    objects = []
    for path in written(GRAPHS[name](), tmp_path):
        objects.append(path.with_suffix(".o"))
        flags = ["-std=c++11", "-x", "c++", "-Wall", "-Wextra", "-Werror", "-c"]
        run([compiler, *flags, "-o", str(objects[-1]), str(path)])
    # A C++ program finds the functions under their C names.
    stem = "digits_int8" if name == "digits" else name
    (tmp_path / "main.cpp").write_text(
        f'#include "{stem}.h"\nint main() {{ alignas(4) static unsigned char arena'
        f"[{stem.upper()}_ARENA_BYTES]; {stem}_invoke(arena);"
        f" return {stem}_init(arena, sizeof arena); }}\n"
    )
    run([compiler, "-std=c++11", "-o", str(tmp_path / "a.out"), str(tmp_path / "main.cpp"),
         *map(str, objects)])  # fmt: skip
    run([str(tmp_path / "a.out")])


def run(command: list[str], stdin: bytes = b"") -> bytes:
    """Run a command and return its output; fails with what it says on stderr."""
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr.decode()[:4000]
    assert b"runtime error" not in result.stderr, result.stderr.decode()[:4000]
    return result.stdout


MAIN = """
#include "{n}.h"
#include <stdio.h>
#include <stdlib.h>
int main(void)
{{
    /* From the heap, so that the sanitizer knows where the arena ends. */
    unsigned char *arena = malloc({N}_ARENA_BYTES);
    if (arena == NULL || {n}_init(arena, {N}_ARENA_BYTES) != 0) {{
        return 1;
    }}
    while (fread({n}_input_0(arena), 1, {N}_INPUT_0_BYTES, stdin) == {N}_INPUT_0_BYTES) {{
        {n}_invoke(arena);
        fwrite({n}_output_0(arena), 1, {N}_OUTPUT_0_BYTES, stdout);
    }}
    free(arena);
    return 0;
}}
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", ["digits", "operators"])
def test_under_address_and_undefined_behaviour_sanitizers(
    name: str, compiler: str, tmp_path: Path
) -> None:
    graph = GRAPHS[name]()
    stem = "digits_int8" if name == "digits" else name
    files = written(graph, tmp_path)
    (tmp_path / "main.c").write_text(MAIN.format(n=stem, N=stem.upper()))
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if compiler == "clang":
        flags = ["-O1", "-fsanitize=undefined", "-fsanitize-trap=undefined"]  # needs no library
    compile_c([*files, tmp_path / "main.c"], tmp_path / "a.out", flags, compiler)
    shape = graph.tensors[graph.inputs[0]].shape
    random = np.random.default_rng(0).choice([-128, 127, 0, 77], (6, *shape[1:])).astype(np.int8)
    images = np.concatenate([samples(), random]) if name == "digits" else random
    stdout = run([str(tmp_path / "a.out")], images.tobytes())
    want = [run_outputs(graph, [image[None]], LITERT)[0] for image in images]
    np.testing.assert_array_equal(
        np.frombuffer(stdout, np.int8).reshape(len(images), -1),
        np.concatenate(want).reshape(len(images), -1),
    )


def test_init_refuses_small_and_misaligned_arenas(tmp_path: Path) -> None:
    library = shared(digits(), tmp_path)
    block = np.zeros(plan_layers(digits()).arena_bytes + 16, np.uint8)
    base = block.ctypes.data + -block.ctypes.data % 4
    size = plan_layers(digits()).arena_bytes

    def init(address: int, size: int) -> int:
        return int(library.digits_int8_init(ctypes.c_void_p(address), ctypes.c_size_t(size)))

    assert init(base, size) == 0
    assert init(base, size - 1) == -1
    assert init(base + 1, size) == init(base + 2, size) == -2


def test_steps_in_order_are_one_run(tmp_path: Path) -> None:
    graph, plan = digits(), plan_layers(digits())
    library = shared(graph, tmp_path)
    image = samples()[0]
    at, out = plan.offset_of(graph.inputs[0]), plan.offset_of(graph.outputs[0])
    results = []
    for stepwise in (False, True):
        arena = np.zeros(plan.arena_bytes + 16, np.int8)[: plan.arena_bytes]
        arena[at : at + image.size] = image.reshape(-1)
        address = ctypes.c_void_p(arena.ctypes.data)
        if stepwise:
            for step in range(sum(len(s.nodes) for s in plan.segments)):
                library.digits_int8_step(address, ctypes.c_uint32(step))
            library.digits_int8_step(address, ctypes.c_uint32(10_000))  # does nothing
        else:
            library.digits_int8_invoke(address)
        results.append(arena[out : out + 10].copy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], run_outputs(graph, [image[None]], LITERT)[0][0])


def shared(graph: Graph, folder: Path, *extra: Path) -> ctypes.CDLL:
    """Compile a network, and further files, into a shared library."""
    files = written(graph, folder)
    compile_c([*files, *extra], folder / "model.so", ["-O1", "-shared", "-fPIC", f"-I{folder}"])
    return ctypes.CDLL(str(folder / "model.so"))


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [(0.05, 3), (1.0, 0), (1 / 256, -128), (0.1, 127), (2.0**-20, -1), (1e-12, 5), (3e5, -128)],
)
def test_header_converts_as_the_border_operators_do(
    scale: float, zero_point: int, tmp_path: Path
) -> None:
    b = Builder()
    x, q = b.tensor((1, 4), "float32", None), b.tensor((1, 4), scale=scale, zero=zero_point)
    y = b.tensor((1, 4), "float32", None)
    b.operator("QUANTIZE", [x], q)
    b.operator("DEQUANTIZE", [q], y)
    graph = run_passes(read_bytes(b.build([x], [y]), "border"), LITERT)
    wrapper = tmp_path / "wrapper.c"
    wrapper.write_text(
        '#include "border.h"\n'
        "void to_stored(const float *a, int8_t *to, int n);\n"
        "void to_real(const int8_t *a, float *to, int n);\n"
        "void to_stored(const float *a, int8_t *to, int n)\n"
        "{ for (int i = 0; i < n; i++) { to[i] = border_quantize_input_0(a[i]); } }\n"
        "void to_real(const int8_t *a, float *to, int n)\n"
        "{ for (int i = 0; i < n; i++) { to[i] = border_dequantize_output_0(a[i]); } }\n"
    )
    library = shared(graph, tmp_path, wrapper)
    step = np.float32(scale)
    ties = (np.arange(-600, 600).astype(np.float32) + np.float32(0.5)) * step
    near = [np.nextafter(ties, np.float32(sign)) for sign in (-np.inf, np.inf)]
    odd = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45, -1e-45])
    drawn = np.random.default_rng(0).normal(0, 100 * scale, 2000)
    numbers = np.concatenate([ties, *near, odd, drawn]).astype(np.float32)
    assert_in_c(library.to_stored, numbers, quantize_float(numbers, scale, zero_point, "int8"))
    stored = np.arange(-128, 128).astype(np.int8)
    assert_in_c(library.to_real, stored, dequantize(stored, scale, zero_point))


def assert_in_c(function: Any, argument: NDArray[Any], want: NDArray[Any]) -> None:
    got = np.empty(argument.shape, want.dtype)
    pointers = (ctypes.c_void_p(argument.ctypes.data), ctypes.c_void_p(got.ctypes.data))
    function(*pointers, ctypes.c_int(argument.size))
    np.testing.assert_array_equal(got, want)


def test_two_networks_in_one_program(tmp_path: Path) -> None:
    """Their sources may even lie in one folder; equal kernels do not clash."""
    graphs = [digits(), operators(), replace(digits(), name="second digits")]
    files = {path for graph in graphs for path in written(graph, tmp_path)}
    assert len(files) == 6
    include = "".join(f'#include "{n}.h"\n' for n in ("digits_int8", "operators", "second_digits"))
    (tmp_path / "main.c").write_text(
        f"{include}static uint32_t a[DIGITS_INT8_ARENA_BYTES / 4 + OPERATORS_ARENA_BYTES / 4];\n"
        "int main(void) { digits_int8_invoke(a); operators_invoke(a); second_digits_invoke(a);\n"
        "return 0; }\n"
    )
    compile_c([*sorted(files), tmp_path / "main.c"], tmp_path / "a.out", STRICT)
    run([str(tmp_path / "a.out")])


def test_source_tree_is_a_value(tmp_path: Path) -> None:
    tree = SourceTree.of({"b/two.c": "2\n", "a.c": b"1\n"})
    assert list(tree) == ["a.c", "b/two.c"] and len(tree) == 2 and tree["a.c"] == b"1\n"
    assert tree.digest() == SourceTree.of({"a.c": "1\n", "b/two.c": b"2\n"}).digest()
    assert tree.digest() != SourceTree.of({"a.c": "1\n2\n", "b/two.c": ""}).digest()
    tree.write(tmp_path)
    before = (tmp_path / "a.c").stat().st_mtime_ns
    os.utime(tmp_path / "a.c", ns=(before - 10**9, before - 10**9))
    tree.write(tmp_path)  # equal files stay as they are, so that make rebuilds nothing
    assert (tmp_path / "a.c").stat().st_mtime_ns == before - 10**9
    assert (tmp_path / "b" / "two.c").read_bytes() == b"2\n"
    with zipfile.ZipFile(io.BytesIO(tree.zip())) as archive:
        assert archive.namelist() == ["a.c", "b/two.c"]
        assert archive.read("b/two.c") == b"2\n"
        assert {i.date_time[0] for i in archive.infolist()} == {1980}
    with pytest.raises(KeyError):
        tree["missing.c"]


def test_numbers_read_back_exactly() -> None:
    for value in (0.1, 1.0, 1e-20, 3.4e38, 1 / 3, 2.0**-149, 5.0, 1e10, 123456.789):
        text = real(value)
        assert text.endswith("f") and np.float32(text[:-1]) == np.float32(value)
        assert re.fullmatch(r"[0-9.]+(e[+-]?\d+)?f", text) and ("." in text or "e" in text)
    extremes = np.array([-(2**31), 2**31 - 1, 0, -128], np.int64)
    assert values(extremes) == "(-2147483647 - 1), 2147483647, 0, -128"
    assert max(map(len, values(np.arange(1000)).splitlines())) <= 100
