"""tinydeploy check: whether models still fit, are exact and are no slower, for CI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("check")
@click.option("--budget", type=_FILE, default=Path("budget.toml"), show_default=True,
              help="TOML with [[deployment]] tables: model, target, data, limits.")  # fmt: skip
@click.option("--junit", "report", type=_FILE, default=None, help="Write JUnit XML.")
@click.option("--update", is_flag=True, help="Write the baseline of speed anew.")
@options.common
def command(
    budget: Path, report: Path | None, update: bool, as_json: bool, verbose: bool, quiet: bool,
    debug: bool, color: bool | None,
) -> int:  # fmt: skip
    """Deploy every model of a budget file in its emulator and compare with the limits.

    Exit code 4 when a limit is exceeded, 7 when an output is not exact.
    """
    from tinydeploy.budget import Result, check_all, junit
    from tinydeploy.errors import UsageError

    def tell(result: Result) -> None:
        if as_json:
            return
        click.echo(f"{'ok  ' if result.passed else 'FAIL'}  {result.title}")
        for c in result.checks:
            if verbose or not c.passed:
                click.echo(f"      {'ok  ' if c.passed else 'FAIL'} {c.name}: {c.detail}")

    with options.progress(quiet) as progress:
        results = check_all(budget, progress, tell, update)
    if report:
        try:
            report.write_bytes(junit(results))
        except OSError as error:
            raise UsageError(f"cannot write {report}", error.strerror or "") from error
    if as_json:
        options.Screen(True, verbose, color).result(results, lambda console: None)
    failed: set[Any] = {c.name for r in results for c in r.checks if not c.passed}
    return 7 if "exact" in failed else 4 if failed else 0
