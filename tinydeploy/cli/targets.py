"""tinydeploy targets: the boards and machines that firmware can be made for."""

from __future__ import annotations

from typing import Any

import click

from tinydeploy.cli import options


@click.command("targets")
@options.common
def command(as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None) -> int:
    """List the boards and machines; a board of your own is one .toml file."""
    from tinydeploy.report.catalogue import target_rows
    from tinydeploy.report.tables import show_rows

    rows = target_rows()

    def show(console: Any) -> None:
        show_rows(console, rows)

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0
