"""Turn a library into a component of ESP-IDF."""

from __future__ import annotations

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import Library, needs_cores, package, page, under


def export(library: Library) -> SourceTree:
    """Return idf_component.yml, CMakeLists.txt, src/ and an example project.

    Raises UsageError where no chip of ESP-IDF can run the kernels.
    """
    needs_cores(library, library.machine.espidf, "ESP-IDF")
    project = "examples/self_test"
    return package(
        library,
        "espidf",
        {
            "CMakeLists.txt": page(library, "espidf/CMakeLists.txt.j2"),
            "idf_component.yml": page(library, "espidf/idf_component.yml.j2"),
            f"{project}/CMakeLists.txt": page(library, "espidf/project.txt.j2"),
            f"{project}/sdkconfig.defaults": page(library, "espidf/sdkconfig.defaults.j2"),
            f"{project}/main/CMakeLists.txt": page(library, "espidf/main.txt.j2"),
            f"{project}/main/idf_component.yml": page(library, "espidf/main.yml.j2"),
            f"{project}/main/main.c": page(library, "espidf/main.c.j2"),
            **under(f"{project}/main", library.self_test),
            **under("src", library.sources),
        },
    )
