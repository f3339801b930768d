"""What doctor finds, and what it says where something is missing."""

import json
import os
import sys
from pathlib import Path

import pytest
from commands import tinydeploy

from tinydeploy.build.toolchain import c_library, find_tool
from tinydeploy.targets import load_target

TOOLS = {
    "mps2-an386": {
        "arm-none-eabi-gcc", "arm-none-eabi-objcopy", "make", "qemu-system-arm", "newlib",
    },
    "riscv-virt": {"riscv64-unknown-elf-gcc", "make", "qemu-system-riscv32", "picolibc"},
    "host": {"gcc", "objcopy", "make", "the system's C library"},
}  # fmt: skip


def rows(*arguments: object, code: int = 0) -> dict[str, dict]:
    found = json.loads(tinydeploy("doctor", *arguments, "--json", code=code).stdout)
    return {row["tool"]: row for row in found}


@pytest.mark.parametrize("target", TOOLS)
def test_all_that_a_target_needs_is_there(target: str) -> None:
    found = rows("--target", target)
    assert TOOLS[target] <= {name for name, row in found.items() if row["needed"]}
    for name in TOOLS[target]:
        assert found[name]["found"] and found[name]["version"][0].isdigit()
    assert not found["ai-edge-litert"]["needed"] and found["ai-edge-litert"]["found"]


def test_boards_list_their_runners_as_optional() -> None:
    found = rows("--target", "nucleo-f446re")
    assert {"probe-rs", "pyocd", "openocd", "gdb-multiarch"} <= found.keys()
    assert not any(found[name]["needed"] for name in ("probe-rs", "pyocd", "openocd"))
    assert found["pyocd"]["version"][0].isdigit() and found["openocd"]["version"][0].isdigit()
    assert "qemu-system-arm" not in found
    assert "esptool" in rows("--target", "esp32-c3-devkitm")


def test_what_is_missing_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcc = find_tool("arm-none-eabi-gcc").require()
    (tmp_path / "arm-none-eabi-gcc").symlink_to(gcc)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = rows("--target", "mps2-an386", code=5)
    missing = {name for name, row in found.items() if row["needed"] and not row["found"]}
    assert missing == {"arm-none-eabi-objcopy", "make", "qemu-system-arm"}
    assert found["qemu-system-arm"]["install"] == "apt install qemu-system-arm"
    text = tinydeploy("doctor", "--target", "mps2-an386", code=5).stdout
    assert "MISSING" in text and "apt install make" in text


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("dnf", "dnf install arm-none-eabi-gcc-cs arm-none-eabi-newlib"),
        ("brew", "brew install --cask gcc-arm-embedded"),
        ("apt", "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"),
    ],
)
def test_packages_are_those_of_the_platform(
    manager: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / manager).write_text("#!/bin/sh\n")
    (tmp_path / manager).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool("arm-none-eabi-gcc").install == command
    assert find_tool("probe-rs").install == (
        "brew install probe-rs-tools" if manager == "brew"
        else "cargo install probe-rs-tools --locked"
    )  # fmt: skip
    if manager != "apt":
        assert "in Debian" in find_tool("riscv64-unknown-elf-gcc").install


def test_a_compiler_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler alone is a package of its own: headers are missing, not the program."""
    fake = tmp_path / "arm-none-eabi-gcc"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nprint('VERSION 3')\n"
        "sys.exit('fatal error: string.h: No such file or directory')\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    library = c_library(load_target("mps2-an386"))
    assert not library.found and "libnewlib-arm-none-eabi" in library.install
    assert not rows("--target", "mps2-an386", code=5)["newlib"]["found"]
    fake.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not c_library(load_target("riscv-virt")).found


def test_the_command_that_installs_an_extra_is_shown_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tinydeploy.report.catalogue.PACKAGES", ((("no-such",), "x", "onnx"),))
    assert "pip install 'tinydeploy[onnx]'" in tinydeploy("doctor", "--target", "host").stdout
