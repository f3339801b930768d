"""Turn a library into a module of Zephyr."""

from __future__ import annotations

from tinydeploy.codegen import SourceTree
from tinydeploy.export.library import Library, needs_cores, package, page, under


def export(library: Library) -> SourceTree:
    """Return zephyr/ with module.yml, Kconfig and CMakeLists.txt, src/ and a sample.

    Raises UsageError where Zephyr cannot name the cores for the kernels.
    """
    needs_cores(library, library.machine.zephyr, "Zephyr")
    sample = "samples/self_test"
    return package(
        library,
        "zephyr",
        {
            "zephyr/module.yml": page(library, "zephyr/module.yml.j2"),
            "zephyr/Kconfig": page(library, "zephyr/Kconfig.j2"),
            "zephyr/CMakeLists.txt": page(library, "zephyr/CMakeLists.txt.j2"),
            f"{sample}/CMakeLists.txt": page(library, "zephyr/sample.txt.j2"),
            f"{sample}/prj.conf": page(library, "zephyr/prj.conf.j2"),
            f"{sample}/sample.yaml": page(library, "zephyr/sample.yaml.j2"),
            f"{sample}/src/main.c": page(library, "zephyr/main.c.j2"),
            **under(f"{sample}/src", library.self_test),
            **under("src", library.sources),
        },
    )
