"""tinydeploy ports: the serial ports of this computer."""

from __future__ import annotations

from typing import Any

import click

from tinydeploy.cli import options


@click.command("ports")
@options.common
def command(as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None) -> int:
    """List the serial ports that a board may be behind."""
    from serial.tools.list_ports import comports

    rows = [
        {"port": p.device, "description": p.description, "id": p.hwid} for p in sorted(comports())
    ]

    def show(console: Any) -> None:
        for row in rows:
            console.print(f"{row['port']}  {row['description']}  {row['id']}", markup=False)
        if not rows:
            console.print("no serial ports; plug a board in, or name a socket:// or rfc2217:// URL")

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0
