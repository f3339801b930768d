"""Turn operators, targets and tools into rows, for the terminal and the README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinydeploy.build.toolchain import build_tools, run_tools
from tinydeploy.ops import registry
from tinydeploy.targets import Target, list_targets


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
    """Return one row per tool that the targets need."""
    tools = {tool.name: tool for t in targets for tool in (*build_tools(t), *run_tools(t))}
    return [
        {
            "tool": tool.name,
            "found": tool.path is not None,
            "version": tool.version() if tool.path is not None else "",
            "install": tool.install,
        }
        for tool in tools.values()
    ]
