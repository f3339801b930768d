"""docs/boards.md: its tables are what the board files and the tests of boards say."""

from __future__ import annotations

import re
from pathlib import Path

from test_boards_tables import DESCRIPTIONS, NEAR_RELATIVES, PARTS

from tinydeploy.targets import Target, list_targets

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "boards.md"
BOARDS = [target for target in list_targets() if target.hardware]


def proofs(target: Target) -> str:
    """Return what tests hold a board to, the strongest first."""
    found = []
    if target.qemu:
        found.append("runs in QEMU, bit-exact")
    elif target.name == "raspberry-pi-pico":
        found.append("runs in rp2040js, bit-exact")
    else:
        found.append("image checked")
    if target.name in DESCRIPTIONS:
        file, unknown = DESCRIPTIONS[target.name]
        near = " (a near relative's)" if target.name in NEAR_RELATIVES else ""
        but = f", but for {', '.join(sorted(unknown))}" if unknown else ""
        found.append(f"registers: {file}{near}{but}")
    if target.name in PARTS:
        found.append(f"memories: pyOCD's {PARTS[target.name][0]}")
    if target.boot == "esp32c3":
        found.append("addresses: esptool's")
    return "; ".join(found)


def table() -> str:
    rows = [
        "| board | clock | memories (kB) | UART | flashed by | proven |",
        "|---|---|---|---|---|---|",
    ]
    for t in BOARDS:
        memories = ", ".join(f"{m.name} {m.size // 1024}" for m in t.memories)
        rows.append(
            f"| {t.name} | {t.clock_hz / 1e6:g} MHz | {memories} | {t.uart.pins} "
            f"| {', '.join(t.flash.order)} | {proofs(t)} |"
        )
    return "\n".join(rows)


def test_the_table_is_current() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(r"<!-- begin boards -->\n(.*?)\n<!-- end boards -->", text, re.DOTALL)
    assert found and found[1] == table(), f"the table should be:\n{table()}"


def test_what_nothing_checks_is_said() -> None:
    """Boards whose registers no table here knows are listed under that heading, and no others."""
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.split("## Registers that no table here knows", 1)[1].split("\n## ", 1)[0]
    unchecked = {t.name for t in BOARDS if t.name not in DESCRIPTIONS}
    assert set(re.findall(r"^- `([a-z0-9-]+)`", section, re.MULTILINE)) == unchecked
