"""Register names of a part -> addresses and fields, from the SVD files that pyOCD ships."""

from __future__ import annotations

import functools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Register:
    """Hold a register's address and its fields: name -> (first bit, bits)."""

    address: int
    fields: dict[str, tuple[int, int]]

    def field_mask(self, name: str) -> int:
        """Return the bits of a field, also of one that the file divides: PLLN8 to PLLN0."""
        parts = [k for k in self.fields if k == name or re.fullmatch(rf"{re.escape(name)}\d", k)]
        if name in self.fields:
            parts = [name]
        assert parts, f"no field {name} among {sorted(self.fields)}"
        return sum(((1 << width) - 1) << first for first, width in map(self.fields.get, parts))


@functools.cache
def registers(name: str) -> dict[str, Register]:
    """Return PERIPHERAL.REGISTER -> Register of one SVD file."""
    import pyocd.debug.svd

    archive = Path(pyocd.debug.svd.__file__).with_name("svd_data.zip")
    with zipfile.ZipFile(archive) as files, files.open(name) as file:
        root = ElementTree.parse(file).getroot()
    peripherals = {p.findtext("name", ""): p for p in root.iter("peripheral")}
    found: dict[str, Register] = {}
    for peripheral_name, peripheral in peripherals.items():
        source = peripherals.get(peripheral.get("derivedFrom", ""), peripheral)
        base = _number(peripheral.findtext("baseAddress"))
        known = {r.findtext("name", ""): r for r in source.iter("register")}
        for prefix, node, offset in _all(source.find("registers")):
            same = known.get(node.get("derivedFrom", ""), node)
            fields = {
                f.findtext("name", ""): _bits(f) for f in (*same.iter("field"), *node.iter("field"))
            }
            found[f"{peripheral_name}.{prefix}"] = Register(base + offset, fields)
    return found


def _all(parent: ElementTree.Element | None, prefix: str = "", base: int = 0):
    for node in parent if parent is not None else ():
        if node.tag not in ("register", "cluster"):
            continue
        name = prefix + node.findtext("name", "")
        offset = base + _number(node.findtext("addressOffset"))
        step = _number(node.findtext("dimIncrement"))
        for index in range(_number(node.findtext("dim")) or 1):
            numbered = name.replace("%s", str(index))
            if node.tag == "cluster":
                yield from _all(node, f"{numbered}.", offset + index * step)
            else:
                yield numbered, node, offset + index * step


def _bits(field: ElementTree.Element) -> tuple[int, int]:
    text = field.findtext("bitRange")
    if text:
        last, first = (int(part) for part in text.strip("[]").split(":"))
        return first, last - first + 1
    if field.findtext("lsb") is not None:
        first = _number(field.findtext("lsb"))
        return first, _number(field.findtext("msb")) - first + 1
    return _number(field.findtext("bitOffset")), _number(field.findtext("bitWidth"))


def _number(text: str | None) -> int:
    return int(text.strip(), 0) if text else 0
