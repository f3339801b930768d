"""Turn operators, targets and tools into rows, for the terminal and the README."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from tinydeploy.build.toolchain import (
    Library,
    Tool,
    build_tools,
    c_library,
    library_name,
    run_tools,
)
from tinydeploy.errors import ToolchainError
from tinydeploy.ops import registry
from tinydeploy.run.flash.flash import RUNNERS
from tinydeploy.targets import Target, list_targets

# Python packages, any of which will do, what they are for, and the extra that brings the first.
PACKAGES = (
    (("ai-edge-litert", "tflite-runtime"), "cross-check with LiteRT", "litert"),
    (("ortools",), "exact memory plans", "solver"),
    (("onnx",), "ONNX models", "onnx"),
    (("tensorflow", "tensorflow-cpu"), "Keras models", "tensorflow"),
)


def op_rows() -> list[dict[str, Any]]:
    """Return one row per operator: what it supports and the sentences it requires."""
    return [
        {
            "operator": op.name,
            "supports": op.summary,
            "requires": [" ".join((check.__doc__ or "").split()) for check in op.checks],
        }
        for op in registry().values()
    ]


def target_rows() -> list[dict[str, Any]]:
    """Return one row per target: core, memories in bytes and where it runs."""
    return [
        {
            "target": t.name,
            "board": t.title,
            "core": t.core,
            "flash": t.flash_bytes if t.architecture != "host" else "",
            "RAM": t.ram_bytes if t.architecture != "host" else "",
            "runs in": _place(t),
        }
        for t in list_targets()
    ]


def _place(target: Target) -> str:
    if target.architecture == "host":
        return "this computer"
    return target.qemu.binary if target.qemu else "the board"


def tool_rows(targets: Sequence[Target]) -> list[dict[str, Any]]:
    """Return one row per program, library and Python package for the targets.

    Those that building and running need come first; `needed` tells them from the others, which
    flash boards or read and write more kinds of models.
    """
    needed: dict[str, tuple[Tool, str]] = {}
    libraries: dict[tuple[str, str], Target] = {}
    flashing: dict[str, Tool] = {}
    for target in targets:
        needed |= {tool.name: (tool, "build") for tool in build_tools(target)}
        needed |= {tool.name: (tool, "emulator") for tool in run_tools(target)}
        libraries.setdefault((target.toolchain.prefix, library_name(target)), target)
        if target.hardware:
            names = [n for n in (*target.flash.order, "gdb") if n != "uf2"]  # that is our own
            tools = [RUNNERS[name].tool(target) for name in names]
            flashing |= {tool.name: tool for tool in tools}
    return [
        *(_tool_row(tool, part, True) for tool, part in needed.values()),
        *(_library_row(c_library(target)) for target in libraries.values()),
        *(_tool_row(tool, "flash", False) for tool in flashing.values()),
        *(_package_row(*package) for package in PACKAGES),
    ]


def _tool_row(tool: Tool, part: str, needed: bool) -> dict[str, Any]:
    found, version = tool.path is not None, ""
    if found:
        try:
            version = tool.version()
        except ToolchainError as error:  # there, but it does not run or is something else
            found, version = not needed, error.what
    return _row(tool.name, part, needed, found, version, tool.install)


def _library_row(library: Library) -> dict[str, Any]:
    return _row(library.name, "C library", True, library.found, library.version, library.install)


def _package_row(names: tuple[str, ...], part: str, extra: str) -> dict[str, Any]:
    found, version = names[0], ""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found, version = name, importlib.metadata.version(name)
            break
    install = f"pip install 'tinydeploy[{extra}]'"
    return _row(found, part, False, bool(version), version, install)


def _row(
    tool: str, part: str, needed: bool, found: bool, version: str, install: str
) -> dict[str, Any]:
    return {
        "tool": tool,
        "for": part,
        "needed": needed,
        "found": found,
        "version": version,
        "install": install,
    }
