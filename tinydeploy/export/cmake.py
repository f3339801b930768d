"""Turn a library into a CMake project that builds, tests and installs it."""

from __future__ import annotations

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import Library, package, page, under


def export(library: Library) -> SourceTree:
    """Return the files of a CMake project with an example that ctest runs."""
    return package(
        library,
        "cmake",
        {
            "CMakeLists.txt": page(library, "cmake/CMakeLists.txt.j2"),
            "example/main.c": page(library, "cmake/main.c.j2"),
            **under("src", library.sources),
            **under("example", library.self_test),
        },
    )
