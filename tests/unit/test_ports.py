"""Which boards ports may belong to, and why one cannot be opened."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import tinydeploy

from tinydeploy.cli import ports
from tinydeploy.cli.ports import port_rows
from tinydeploy.targets import list_targets

STLINK = SimpleNamespace(
    device="/dev/ttyNOACM0", vid=0x0483, pid=0x374B, serial_number="066DFF", description="STLINK-V2"
)
BRIDGE = SimpleNamespace(
    device="/dev/ttyNOUSB0", vid=0x10C4, pid=0xEA60, serial_number=None, description="CP2102N"
)
OLD = SimpleNamespace(
    device="/dev/ttyNOS0", vid=None, pid=None, serial_number=None, description=None
)


def test_boards_by_their_usb_numbers() -> None:
    stlink, bridge, old = port_rows([STLINK, BRIDGE, OLD], list_targets())
    assert stlink["usb"] == "0483:374b" and stlink["serial"] == "066DFF"
    assert {"nucleo-f446re", "nucleo-h743zi"} <= set(stlink["boards"])
    assert "esp32-c3-devkitm" not in stlink["boards"]
    assert bridge["boards"] == ["esp32-c3-devkitm"] and bridge["serial"] == ""
    assert old == {"port": "/dev/ttyNOS0", "usb": "", "serial": "", "boards": [],
                   "description": "", "access": ""}  # fmt: skip


def test_the_command_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[SimpleNamespace] = []
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: found)
    monkeypatch.setattr(ports, "sorted", lambda rows: rows, raising=False)
    assert "no serial ports" in tinydeploy("ports").stdout
    assert json.loads(tinydeploy("ports", "--json").stdout) == []
    found += [STLINK, OLD]
    text = tinydeploy("ports").stdout
    assert "/dev/ttyNOACM0" in text and "nucleo-f446re" in text and "066DFF" in text
    assert json.loads(tinydeploy("ports", "--json").stdout)[0]["usb"] == "0483:374b"


def test_a_port_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = SimpleNamespace(**{**vars(STLINK), "device": str(tmp_path / "tty")})
    Path(port.device).touch()
    assert port_rows([port], ())[0]["access"] == ""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(Path, "group", lambda self: "dialout")
    assert "usermod -aG dialout" in port_rows([port], ())[0]["access"]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: [port])
    assert "usermod -aG dialout" in tinydeploy("ports").stdout
    monkeypatch.setattr(Path, "group", lambda self: "root")
    assert "udev rule" in port_rows([port], ())[0]["access"]
