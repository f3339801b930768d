"""Turn the name of a format into the function that writes it."""

from __future__ import annotations

from collections.abc import Callable

from tinydeploy.codegen import SourceTree
from tinydeploy.export import arduino, cmake, cmsis_pack, espidf, platformio, zephyr
from tinydeploy.export.library import Library

FORMATS: dict[str, Callable[[Library], SourceTree]] = {
    "cmake": cmake.export,
    "arduino": arduino.export,
    "platformio": platformio.export,
    "zephyr": zephyr.export,
    "espidf": espidf.export,
    "cmsis-pack": cmsis_pack.export,
}
