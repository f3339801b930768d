"""tinydeploy ops: the operators, and what each accepts."""

from __future__ import annotations

from typing import Any

import click

from tinydeploy.cli import options


@click.command("ops")
@options.common
def command(as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None) -> int:
    """List the operators; -v adds what each requires."""
    from tinydeploy.report.catalogue import op_rows
    from tinydeploy.report.tables import show_rows

    rows = op_rows()

    def show(console: Any) -> None:
        if verbose:
            for row in rows:
                console.print(f"{row['operator']}: {row['supports']}", markup=False)
                for sentence in row["requires"]:
                    console.print(f"    {sentence}", markup=False)
            return
        show_rows(console, [{k: v for k, v in row.items() if k != "requires"} for row in rows])

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0
