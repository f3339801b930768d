"""Turn a library into one for the Arduino IDE and arduino-cli."""

from __future__ import annotations

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import Library, needs_cores, package, page, under


def export(library: Library) -> SourceTree:
    """Return library.properties, src/ and an example sketch, in the layout of 1.5 and later.

    Raises UsageError where no Arduino core has cores for the kernels.
    """
    needs_cores(library, library.machine.arduino, "Arduino")
    return package(
        library,
        "arduino",
        {
            "library.properties": page(
                library, "arduino/library.properties.j2", title=title(library.name)
            ),
            "keywords.txt": page(library, "arduino/keywords.txt.j2"),
            "examples/SelfTest/SelfTest.ino": page(library, "arduino/SelfTest.ino.j2"),
            **under("examples/SelfTest", library.self_test),
            **under("src", library.sources),
        },
    )


def title(name: str) -> str:
    """Return the name of a library; only Arduino's own may begin with "arduino"."""
    return f"model_{name}" if name.startswith("arduino") else name
