"""Turn a library into a CMSIS-Pack."""

from __future__ import annotations

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import Library, needs_cores, package, page, under

_LONGEST = 32  # letters of a component's name: CsubType of PACK.xsd


def export(library: Library) -> SourceTree:
    """Return the package description (.pdsc), src/ and the self test as a template for users.

    Raises UsageError for kernels of other cores than Arm's.
    """
    needs_cores(library, library.machine.cmsis, "CMSIS-Pack")
    return package(
        library,
        "cmsis-pack",
        {
            f"{library.publisher.vendor}.{library.name}.pdsc": page(
                library, "cmsis-pack/pack.pdsc.j2", part=library.name[:_LONGEST].rstrip("_")
            ),
            "example/main.c": page(library, "cmake/main.c.j2"),
            **under("example", library.self_test),
            **under("src", library.sources),
        },
    )
