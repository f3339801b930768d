"""tinydeploy doctor: what is installed of what targets need, and how to get the rest."""

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
    """Check compilers, C libraries, emulators, programs that flash and Python packages.

    Exit code 5 if something is missing that building or running needs; the rest is optional.
    """
    from tinydeploy.report.catalogue import tool_rows
    from tinydeploy.report.tables import show_rows
    from tinydeploy.targets import list_targets, load_target

    boards = (load_target(target),) if target else list_targets()
    rows = tool_rows(boards)

    def show(console: Any) -> None:
        show_rows(
            console,
            [
                {
                    "tool": row["tool"],
                    "for": row["for"],
                    "found": _found(row),
                    "to install": "" if row["found"] else row["install"],
                }
                for row in rows
            ],
        )

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0 if all(row["found"] for row in rows if row["needed"]) else 5


def _found(row: dict[str, Any]) -> str:
    if row["found"]:
        return str(row["version"])
    return "MISSING" if row["needed"] else "no (optional)"
