"""The house rules that tools can check."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_formatted() -> None:
    run(str(BIN / "ruff"), "format", "--check", ".")


def test_lint() -> None:
    run(str(BIN / "ruff"), "check", ".")


def test_types() -> None:
    run(str(BIN / "mypy"))


def test_layers() -> None:
    run(str(BIN / "lint-imports"))


def test_every_package_file_says_what_it_does() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tinydeploy").rglob("*.py")
        if not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert not bare


def test_no_machine_paths_or_times() -> None:
    pattern = re.compile(r"/(home|root|tmp|work)/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("tinydeploy", "templates", "targets", "firmware")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_firmware_has_no_warnings(compiler: str, tmp_path: Path) -> None:
    """The portable part of the firmware is clean C99 for both compilers."""
    from tinydeploy.build.firmware import firmware_files
    from tinydeploy.targets import load_target

    files = firmware_files(load_target("host"), ("firmware_model.c",), arena_bytes=64)
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for source in sorted((tmp_path / "firmware").glob("*.c")):
        run(
            compiler, "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wcast-qual",
            "-Werror", "-D_POSIX_C_SOURCE=200809L", "-c", str(source), "-o", str(tmp_path / "x.o"),
        )  # fmt: skip
