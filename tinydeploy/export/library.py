"""Turn the generated C of a network into a library that any build system can take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinydeploy import __version__
from tinydeploy.codegen import SourceTree, names
from tinydeploy.codegen.regions import regions_of
from tinydeploy.codegen.render import read, render
from tinydeploy.errors import UsageError
from tinydeploy.export.machines import Machine, machine_for
from tinydeploy.export.self_test import SAMPLES, expected_digest
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.targets import Target

MARKER = "tinydeploy-export.json"
LICENCE = "Apache-2.0"

_AUTHOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}")
_URL = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/?#@!+,;=%-]{0,200}")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


@dataclass(frozen=True, slots=True)
class Publisher:
    """Say who publishes a library, where, and as which version (three numbers)."""

    author: str = "tinydeploy"
    url: str = "https://example.com"
    version: str = ".".join(re.findall(r"\d+", __version__)[:3])

    @property
    def vendor(self) -> str:
        """Return the author with the letters that a pack's file name may have."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.author)[:32].strip("-")

    def checked(self) -> Publisher:
        """Return this, or raise UsageError for text that some metadata could not hold."""
        for option, value, pattern, hint in (
            ("--author", self.author, _AUTHOR, "letters, digits, spaces, dots, dashes; up to 63"),
            ("--url", self.url, _URL, "like https://example.com/models"),
            ("--release", self.version, _VERSION, "three numbers, like 1.0.2"),
        ):
            if not pattern.fullmatch(value):
                raise UsageError(f"{option} {names.comment(value)!r} cannot be used", hint)
        return self


@dataclass(frozen=True, slots=True)
class Library:
    """Hold the C of a network and what its packages say about it.

    sources: the network itself; self_test: C that runs it on known inputs.
    """

    name: str
    model: str
    sha256: str
    target: str
    machine: Machine
    publisher: Publisher
    sources: SourceTree
    self_test: SourceTree
    arena_bytes: int
    digest: int

    @property
    def code(self) -> tuple[str, ...]:
        """Return the names of the files to compile."""
        return tuple(path for path in self.sources if path.endswith(".c"))

    @property
    def headers(self) -> tuple[str, ...]:
        return tuple(path for path in self.sources if path.endswith(".h"))

    @property
    def sentence(self) -> str:
        return f"The neural network {self.name} as C without dependencies, from tinydeploy."


def library_of(
    sources: Mapping[str, bytes],
    graph: Graph,
    plan: MemoryPlan,
    profile: IntegerProfile,
    target: Target,
    model: str,
    publisher: Publisher,
) -> Library:
    """Return the library of a network whose C was generated for a target.

    `sources` are what codegen.generate gave; `model` is the name of the model's file. Raises
    UsageError for a publisher that metadata cannot hold.
    """
    name = names.identifier(graph.name)
    # What the firmware links is of no use in a program of someone else's.
    own = {path: text for path, text in sources.items() if path != "firmware_model.c"}
    machine = machine_for(target, own)
    expected = expected_digest(graph, profile)
    shared: dict[str, Any] = {
        "name": name,
        "NAME": name.upper(),
        "machine": machine,
        "target": names.comment(target.name),
        "regions": regions_of(graph, plan),
        "reader": plan.streamed_input,
        # A tensor that is several inputs is written once, as the first of them.
        "inputs": sorted({graph.inputs.index(i) for i in graph.inputs}),
        "outputs": range(len(graph.outputs)),
        "samples": SAMPLES,
        "expected": expected,
    }
    own[f"{name}_requirements.c"] = render("export/requirements.c.j2", **shared).encode()
    return Library(
        name=name,
        model=names.comment(model).replace("`", "'"),
        sha256=graph.source_sha256,
        target=target.name,
        machine=machine,
        publisher=publisher.checked(),
        sources=SourceTree.of(own),
        self_test=SourceTree.of(
            {
                f"{name}_self_test.{suffix}": render(f"export/self_test.{suffix}.j2", **shared)
                for suffix in ("h", "c")
            }
        ),
        arena_bytes=sum(arena.bytes for arena in plan.arenas),
        digest=expected,
    )


def under(folder: str, tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files moved into a folder."""
    return {f"{folder}/{path}": text for path, text in tree.items()}


def page(library: Library, template: str, **more: Any) -> str:
    """Return a template of templates/export/ rendered for a library."""
    return render(
        f"export/{template}",
        library=library, name=library.name, NAME=library.name.upper(), licence=LICENCE,
        machine=library.machine, publisher=library.publisher, **more,
    )  # fmt: skip


def package(library: Library, kind: str, files: Mapping[str, bytes | str]) -> SourceTree:
    """Return the files of a format with those that every format has: licence, readme, marker."""
    marker = {
        "format": kind,
        "library": library.name,
        "version": library.publisher.version,
        "licence": LICENCE,
        "tinydeploy": __version__,
        "model": library.model,
        "model_sha256": library.sha256,
        "target": library.target,
        "cores": library.machine.title,
        "arena_bytes": library.arena_bytes,
        "sources_sha256": library.sources.digest(),
        "self_test_digest": f"0x{library.digest:08x}",
    }
    return SourceTree.of(
        {
            "LICENSE": read("export/LICENSE"),
            "README.md": page(library, "README.md.j2", use=f"export/{kind}/use.md.j2"),
            MARKER: json.dumps(marker, indent=2) + "\n",
            **files,
        }
    )


def needs_cores(library: Library, known: object, system: str) -> None:
    """Raise UsageError where a build system has no cores that can run a library's kernels."""
    if not library.machine.portable and not known:
        raise UsageError(
            f"{library.name} cannot be exported for {system}",
            f"its kernels are for {library.machine.title}, which {system} has no word for",
            "export the model with --target host: portable C runs on every core",
        )
