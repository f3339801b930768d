"""A model becomes a library of a build system: the same C, an example that proves it, metadata."""

import json
import re
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builder import Builder
from commands import tinydeploy
from hostlib import STRICT
from networks import residual_network

from tinydeploy import pipeline
from tinydeploy.cli import export as command
from tinydeploy.errors import UsageError
from tinydeploy.export.formats import FORMATS
from tinydeploy.export.library import Library, Publisher, library_of
from tinydeploy.export.self_test import digest, known_bytes
from tinydeploy.plan.search import AUTO, Wanted
from tinydeploy.targets import load_target

ROOT = Path(__file__).resolve().parents[2]


def library(
    folder: Path, target: str = "host", wanted: Wanted = AUTO, model: bytes | None = None
) -> Library:
    """Return the library of a small network, or of a model, generated for a target."""
    path = folder / "Small net.tflite"
    path.write_bytes(model or residual_network())
    board, clock = load_target(target), pipeline.Clock()
    core = pipeline.core_of(board, "balanced")
    prepared = pipeline.prepare(path, "litert", "greedy", clock, core, wanted=wanted)
    sources = pipeline.generate_sources(prepared, board, clock).sources
    return library_of(
        sources, prepared.graph, prepared.plan, prepared.profile, board, path.name, Publisher()
    )


def call(*command: object, code: int = 0, cwd: Path | None = None) -> str:
    """Run a tool, which must end with `code`, and return what it said."""
    result = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=300, check=False, cwd=cwd
    )
    assert (result.returncode == 0) == (code == 0), result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "Small net.tflite"
    path.write_bytes(residual_network())
    return path


def test_cmake_builds_tests_and_installs(model: Path, tmp_path: Path) -> None:
    out, build, prefix = tmp_path / "small_net", tmp_path / "build", tmp_path / "prefix"
    tinydeploy("export", model, "--format", "cmake", "-o", out)
    flags = f"-DCMAKE_C_FLAGS={' '.join(STRICT)}"
    call("cmake", "-S", out, "-B", build, flags, f"-DCMAKE_INSTALL_PREFIX={prefix}")
    call("cmake", "--build", build)
    assert "100% tests passed, 0 tests failed out of 1" in call("ctest", "--test-dir", build)
    call("cmake", "--install", build)

    user = tmp_path / "user"
    write_user(user, "find_package(small_net 0.1 CONFIG REQUIRED)")
    call("cmake", "-S", user, "-B", user / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", user / "b")
    call(user / "b" / "user")


def write_user(folder: Path, found: str, kind: str = "executable") -> None:
    """Write a project that uses the library, which CMake finds as said."""
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(user C)\n{found}\n"
        f"add_{kind}(user main.c)\n"
        "target_link_libraries(user PRIVATE tinydeploy::small_net)\n"
    )
    (folder / "main.c").write_text(
        '#include "small_net.h"\n'
        "static uint8_t arena[SMALL_NET_ARENA_BYTES]"
        " __attribute__((aligned(SMALL_NET_ARENA_ALIGNMENT)));\n"
        "int main(void) { return small_net_init(arena, sizeof arena); }\n"
    )


def test_the_example_finds_a_wrong_bit(tmp_path: Path) -> None:
    tree = FORMATS["cmake"](library(tmp_path))
    tree.write(tmp_path)
    weights = tmp_path / "src" / "small_net_weights.c"
    wrong, count = re.subn(r"(bias\[\d+\] = \{)", r"\1 9000 -", weights.read_text())
    assert count > 0
    weights.write_text(wrong)
    sources = [*tmp_path.glob("src/*.c"), *tmp_path.glob("example/*.c")]
    call("gcc", *sources, f"-I{tmp_path}/src", "-o", tmp_path / "wrong")
    assert "WRONG" in call(tmp_path / "wrong", code=1)


@pytest.mark.parametrize(
    "wanted",
    [Wanted("layer"), Wanted("streamed", streamed_input=True), Wanted("layer", flash_input=True)],
    ids=["layer", "rows", "flash"],
)
def test_the_example_is_bit_exact_however_inputs_come(wanted: Wanted, tmp_path: Path) -> None:
    tree = FORMATS["cmake"](library(tmp_path, wanted=wanted))
    tree.write(tmp_path)
    sources = [*tmp_path.glob("src/*.c"), *tmp_path.glob("example/*.c")]
    call("gcc", "-std=c99", *STRICT, *sources, f"-I{tmp_path}/src", "-o", tmp_path / "right")
    assert "bit-exact" in call(tmp_path / "right")


def test_the_example_has_several_inputs_and_outputs(tmp_path: Path) -> None:
    b = Builder()
    left, right, total, less = (
        b.tensor((1, 3, 5), "int16", s, zero=0, name=n)
        for n, s in (("left", 0.01), ("right", 0.02), ("total", 0.03), ("less", 0.04))
    )
    b.operator("ADD", [left, right], total)
    b.operator("ADD", [total, left], less)
    found = library(tmp_path, model=b.build([left, right], [total, less]))
    tree = FORMATS["cmake"](found)
    tree.write(tmp_path)
    sources = [*tmp_path.glob("src/*.c"), *tmp_path.glob("example/*.c")]
    call("gcc", "-std=c99", *STRICT, *sources, f"-I{tmp_path}/src", "-o", tmp_path / "right")
    assert "bit-exact" in call(tmp_path / "right")


def test_known_inputs_differ_by_byte_and_slot() -> None:
    first, second = known_bytes(0, 0, 4096), known_bytes(0, 1, 4096)
    assert np.unique(first).size == 256 and abs(float(first.mean())) < 8
    assert (first != second).mean() > 0.98
    assert digest([b"foo", b"bar"]) == 0xBF9CF968  # from the FNV test vectors


@pytest.mark.parametrize("kind", FORMATS)
def test_exports_are_reproducible_and_say_their_licence(
    kind: str, model: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    for out in (first, second):
        tinydeploy("export", model, "-f", kind, "-o", out)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        files = {n: archive.read(n) for n in archive.namelist()}
    top = "" if kind == "cmsis-pack" else "small_net/"
    assert files[f"{top}LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert json.loads(files[f"{top}tinydeploy-export.json"])["format"] == kind
    assert not any("tinydeploy.json" in n or "firmware_model" in n for n in files)
    for name, text in files.items():
        assert str(model.parent).encode() not in text
        generated = b"Generated by tinydeploy" in text[:40] or "/td_" in name
        if (
            name.endswith((".c", ".h", ".txt", ".yml", ".yaml", ".conf", ".ino", "Kconfig"))
            and not generated
        ):
            assert b"SPDX-License-Identifier: Apache-2.0" in text, name


def test_a_deployment_folder_exports_what_was_deployed(model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "deployed", tmp_path / "out"
    tinydeploy("deploy", model, "-t", "host", "--schedule", "streamed", "--out", folder,
               "--samples", 1)  # fmt: skip
    document = tinydeploy("export", folder, "-f", "cmake", "-o", out, "--json", "--release",
                          "2.0.1", "--author", "A. Person").stdout  # fmt: skip
    assert json.loads(document)["version"] == "2.0.1"
    for path in (folder / "model").iterdir():
        exported = out / "src" / path.name
        if path.name != "firmware_model.c":
            assert exported.read_bytes() == path.read_bytes()
    said = tinydeploy("export", folder, "-f", "cmake", "-o", out, "-t", "host", code=2).stderr
    assert "--target is for models" in said
    (folder / "model" / "small_net.c").write_text("int x;")
    said = tinydeploy("export", folder, "-f", "cmake", "-o", out, code=2).stderr
    assert "is not what was deployed" in said


def test_output_folders_of_others_are_left_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    said = tinydeploy("export", model, "-f", "cmake", "-o", out, code=2).stderr
    assert "already holds other files" in said and not (out / "README.md").exists()
    (out / "mine").rmdir()
    for _ in range(2):  # once more over the same
        tinydeploy("export", model, "-f", "cmake", "-o", out)
    marker = out / "tinydeploy-export.json"
    marker.write_text(marker.read_text().replace('"small_net"', '"other"'))
    assert "holds another export" in tinydeploy("export", model, "-f", "cmake", "-o", out,
                                                code=2).stderr  # fmt: skip
    for damage in ("[" * 100_000, "[1]", "{", "\0"):
        marker.write_text(damage)
        said = tinydeploy("export", model, "-f", "cmake", "-o", out, code=2).stderr
        assert "is damaged" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "-f", "cmake", "-o", "out"), "nowhere"),
        ((".", "-f", "cmake", "-o", "out"), "is not a deployment folder"),
        (("MODEL", "-f", "make", "-o", "out"), "cmsis-pack"),
        (("MODEL", "-f", "cmake", "-o", "MODEL"), "cannot write"),
        (("MODEL", "-f", "cmake", "-o", "out", "--author", "x\ny=1"), "--author"),
        (("MODEL", "-f", "cmake", "-o", "out", "--author", '"</name>'), "--author"),
        (("MODEL", "-f", "cmake", "-o", "out", "--url", "javascript:1"), "--url"),
        (("MODEL", "-f", "cmake", "-o", "out", "--release", "1.2"), "--release"),
        (("MODEL", "-f", "cmake", "-o", "out", "-t", "none"), "unknown target"),
    ],
)
def test_wrong_options_are_named(
    arguments: tuple[str, ...], says: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [str(model) if a == "MODEL" else a for a in arguments]
    code = 3 if "nowhere" in arguments else 2
    assert says in tinydeploy("export", *given, code=code).stderr
    assert not (tmp_path / "out").exists()


def test_names_of_models_stay_within_their_place(tmp_path: Path) -> None:
    """What a model is called changes no file's meaning."""
    hostile = replace(library(tmp_path), model='"); system(rm) </description>`#\\')
    plain = library(tmp_path)
    for kind, export in FORMATS.items():
        ours, theirs = export(plain), export(hostile)
        differ = {n for n in ours if ours[n] != theirs[n]}
        assert differ <= {"README.md", "tinydeploy-export.json"}, kind


def test_the_command_offers_every_format() -> None:
    assert set(command._FORMATS) == set(FORMATS)


def test_versions_of_tinydeploy_are_versions_of_libraries() -> None:
    assert Publisher().checked().version.count(".") == 2
    with pytest.raises(UsageError, match="--release"):
        Publisher(version="1.0.0-beta").checked()
