"""tinydeploy doctor: which compilers and emulators are there, and how to get the others."""

from __future__ import annotations

from typing import Any

import click

from tinydeploy.cli import options


@click.command("doctor")
@click.option("-t", "--target", default=None, metavar="NAME", help="Check one target only.")
@options.common
def command(
    target: str | None, as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None
) -> int:
    """Check that the tools of each target are installed; exit code 5 if one is missing."""
    from tinydeploy.report.catalogue import tool_rows
    from tinydeploy.report.tables import show_rows
    from tinydeploy.targets import list_targets, load_target

    boards = (load_target(target),) if target else list_targets()
    rows = tool_rows(boards)

    def show(console: Any) -> None:
        show_rows(console, rows)

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0 if all(row["found"] for row in rows) else 5
