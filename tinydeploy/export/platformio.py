"""Turn a library into a PlatformIO library."""

from __future__ import annotations

import json

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import LICENCE, Library, needs_cores, package, page, under


def export(library: Library) -> SourceTree:
    """Return library.json, src/ and an example for the framework Arduino.

    Raises UsageError where no platform has cores for the kernels.
    """
    needs_cores(library, library.machine.platformio, "PlatformIO")
    example = under("examples/self_test", library.self_test)
    example["examples/self_test/self_test.ino"] = page(library, "arduino/SelfTest.ino.j2").encode()
    manifest = {
        "name": library.name,
        "version": library.publisher.version,
        "description": library.sentence,
        "keywords": ["tinyml", "neural network", "microcontroller"],
        "homepage": library.publisher.url,
        "authors": [{"name": library.publisher.author}],
        "license": LICENCE,
        "frameworks": "*",
        "platforms": list(library.machine.platformio),
        "headers": f"{library.name}.h",
        "build": {"flags": list(library.machine.flags), "libArchive": True},
        "examples": [
            {
                "name": "self_test",
                "base": "examples/self_test",
                "files": [path.rpartition("/")[2] for path in sorted(example)],
            }
        ],
    }
    text = json.dumps(manifest, indent=2) + "\n"
    return package(
        library,
        "platformio",
        {"library.json": text, **under("src", library.sources), **example},
    )
