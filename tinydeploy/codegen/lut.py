"""Turn an integer table into C, or into words for hardware."""

from __future__ import annotations

import numpy as np

from tinydeploy import __version__
from tinydeploy.codegen.render import render
from tinydeploy.numerics.lut.functions import Function
from tinydeploy.numerics.lut.integer import IntegerTable


def c_source(function: Function, table: IntegerTable, *, header: bool) -> str:
    """Return arrays and `td_lut_<function>`, static inline in a header."""
    limit = 1 << (table.bits - 1)
    return render(
        "lut.c.j2", title=f"{function.name} in {len(table.slopes)} straight segments",
        version=__version__, table=table, header=header, name=function.name, low=function.low,
        high=function.high, least=-limit, most=limit - 1,
    )  # fmt: skip


def words(table: IntegerTable) -> bytes:
    """Return little-endian words for n segments, 8 n + 4 bytes.

    uint16 n, uint16 shift; int16 breakpoints [n], the last one unused and 32767; int16 slopes [n];
    int32 intercepts [n].
    """
    count = len(table.slopes)
    return b"".join(
        (
            np.array([count, table.shift], "<u2").tobytes(),
            np.append(table.breakpoints, 32767).astype("<i2").tobytes(),
            table.slopes.astype("<i2").tobytes(),
            table.intercepts.astype("<i4").tobytes(),
        )
    )


def intel_hex(data: bytes) -> str:
    """Return bytes from address 0 on as Intel HEX, 16 to a record (Intel, 1988)."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        record = bytes([len(part), at >> 8, at & 255, 0]) + part
        lines.append(f":{record.hex().upper()}{-sum(record) & 255:02X}")
    return "\n".join([*lines, ":00000001FF"]) + "\n"
