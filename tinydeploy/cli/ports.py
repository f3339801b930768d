"""tinydeploy ports: the serial ports of this computer and the boards that may be behind them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tinydeploy.cli import options


@click.command("ports")
@options.common
def command(as_json: bool, verbose: bool, quiet: bool, debug: bool, color: bool | None) -> int:
    """List the serial ports, the boards that may be behind them, and whether they open.

    A board is recognised by the USB number of its debug probe or serial chip, which several
    boards share; the serial number is what 'flash --probe' takes.
    """
    from serial.tools.list_ports import comports

    from tinydeploy.report.tables import show_rows
    from tinydeploy.targets import list_targets

    rows = port_rows(sorted(comports()), list_targets())

    def show(console: Any) -> None:
        if rows:
            show_rows(console, [{k: v for k, v in row.items() if k != "access"} for row in rows])
        else:
            console.print("no serial ports; plug a board in, or name a socket:// or rfc2217:// URL")
        for row in rows:
            if row["access"]:
                console.print(f"{row['port']}: {row['access']}", markup=False, soft_wrap=True)

    options.Screen(as_json, verbose, color).result(rows, show)
    return 0


def port_rows(ports: Sequence[Any], targets: Sequence[Any]) -> list[dict[str, Any]]:
    """Return one row per port of pyserial's list: what is known of it, and which boards fit.

    `access` says what keeps this user from opening the port, '' where nothing does.
    """
    boards: dict[str, list[str]] = {}
    for target in targets:
        for number in target.flash.usb:
            boards.setdefault(number, []).append(target.name)
    rows = []
    for port in ports:
        number = f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None else ""
        rows.append(
            {
                "port": port.device,
                "usb": number,
                "serial": port.serial_number or "",
                "boards": boards.get(number, []),
                "description": port.description or "",
                "access": _access(port.device),
            }
        )
    return rows


def _access(device: str) -> str:
    """Return what to do where the port's permissions keep this user out."""
    path = Path(device)
    if not sys.platform.startswith("linux") or not path.exists():
        return ""
    if os.access(path, os.R_OK | os.W_OK):
        return ""
    try:
        group = path.group()
    except (KeyError, OSError):
        group = "dialout"
    if group == "root":
        return "only root may open it: a udev rule must give it a group; see docs/flashing.md"
    return f"you may not open it: sudo usermod -aG {group} $USER, then log in again"
