"""Turn a finished command into its HTML page on disk, with the command line that repeats it."""

from __future__ import annotations

import platform
import shlex
from pathlib import Path

import click

from tinydeploy.build.firmware import Firmware
from tinydeploy.build.toolchain import build_tools, run_tools
from tinydeploy.errors import UsageError
from tinydeploy.pipeline import Prepared
from tinydeploy.plan.flash import plan_constants
from tinydeploy.report.document import Document
from tinydeploy.report.front import FrontPoint
from tinydeploy.report.page import Reproduction, report_html
from tinydeploy.targets import Target

# Options that say where results go or how they are shown, not what they are.
_ASIDE = {"out", "report", "svg", "tflm", "as_json", "verbose", "quiet", "debug", "color",
          "dump_after", "port", "timeout"}  # fmt: skip


def command_line() -> str:
    """Return the running command as a shell line, with the options the user gave.

    Files appear by name only, so that the page tells nothing about this computer.
    """
    context = click.get_current_context()
    words = ["tinydeploy", context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in _ASIDE or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Option):
            words.append(max(parameter.opts, key=len))
            if parameter.is_flag:
                continue
        words.append(value.name if isinstance(value, Path) else str(value))
    return shlex.join(words)


def front_points(prepared: Prepared) -> list[FrontPoint]:
    """Return the plans that were weighed against each other, none where there was no choice."""
    if len(prepared.front) < 2:
        return []
    points = []
    for choice in prepared.front:
        runs = [s for s in choice.plan.segments if s.kind == "streamed"]
        nodes = sum(len(s.nodes) for s in runs)
        label = f"{nodes} nodes row by row" if runs else "layer by layer"
        if choice.strips:
            label += f", {choice.strips.parts} strips"
        arena, count = choice.plan.arena_bytes, round(choice.instructions)
        chosen = choice.plan is prepared.plan
        flash = plan_constants(choice.graph, prepared.profile, choice.plan)
        points.append(FrontPoint(label, arena, count, flash, choice.mac_factor, chosen))
    return points


def write_page(
    path: Path,
    document: Document,
    prepared: Prepared,
    target: Target | None,
    firmware: Firmware | None = None,
) -> None:
    """Write the page of a document; raises UsageError when the file cannot be written."""
    versions = {"Python": platform.python_version()}
    if target and firmware:
        tools = (*build_tools(target), *run_tools(target))
        versions |= {tool.name: tool.version() for tool in tools if tool.path is not None}
        versions["Firmware, digest"] = firmware.digest.hex()
    page = report_html(
        document,
        prepared.graph,
        prepared.plan,
        Reproduction(command_line(), versions),
        target,
        front_points(prepared),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}", error.strerror or "") from error
