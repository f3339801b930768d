"""Turn measured instruction counts into the fastest kernel per node, kept in a cache.

Counts in the emulator are deterministic, so one run per candidate is enough. A run measures one
candidate of every node at once; the cache keeps each count, so an interrupted run goes on where
it stopped. The choice of a kernel never changes a result bit.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tinydeploy import __version__, pipeline, resources
from tinydeploy.build.toolchain import build_tools
from tinydeploy.errors import MismatchError, UsageError
from tinydeploy.ir import Graph
from tinydeploy.ir.dump import describe_tensor
from tinydeploy.numerics.profile import IntegerProfile
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.select import Core, candidates, select
from tinydeploy.targets import Target
from tinydeploy.verify.samples import random_samples

_SCHEMA = """
create table if not exists counts (
    key text not null, function text not null, instructions integer not null,
    primary key (key, function)
)"""


@dataclass(frozen=True, slots=True)
class Tuned:
    """Hold what tuning found: instructions before and after, and the kernels that changed."""

    before: int
    after: int
    changed: int
    runs: int


def cache_path() -> Path:
    """Return the cache's file: $TINYDEPLOY_CACHE, else below the user's cache folder."""
    if given := os.environ.get("TINYDEPLOY_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tinydeploy" / "tuning.sqlite"


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30)
        connection.execute(_SCHEMA)
        return connection
    except (OSError, sqlite3.Error) as error:
        raise UsageError(
            f"the tuning cache {path} cannot be used", str(error),
            "delete it, or name another file in TINYDEPLOY_CACHE",
        ) from error  # fmt: skip


@cache
def _generator() -> str:
    """Return a digest of all templates: another kernel source is another measurement."""
    sha = hashlib.sha256(__version__.encode())
    folder = resources.folder("templates")
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sha.update(str(path.relative_to(folder)).encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def node_keys(graph: Graph, profile: IntegerProfile, target: Target, optimize: str) -> list[str]:
    """Return, per node, the text that a measurement holds for.

    It names operator, attributes, shapes and quantisation, the instruction set, the compiler and
    its flags, the generator, and the weights, because some kernels depend on their values.
    """
    compiler = build_tools(target)[0]
    common = (target.isa, target.features, target.toolchain.flags, compiler.name,
              compiler.version(), _generator(), optimize, profile.name)  # fmt: skip
    keys = []
    for node in graph.nodes:
        sha = hashlib.sha256(repr((common, node.op, node.attributes)).encode())
        for i in (*node.inputs, *node.outputs):
            tensor = None if i is None else graph.tensors[i]
            sha.update(describe_tensor(tensor).encode() if tensor else b"none")
            if tensor is not None and tensor.data is not None:
                sha.update(tensor.data.tobytes())
        keys.append(sha.hexdigest())
    return keys


def preferred(
    graph: Graph, profile: IntegerProfile, target: Target, optimize: str
) -> dict[int, str]:
    """Return the function that was measured fastest, for the nodes the cache knows."""
    path = cache_path()
    if not path.is_file():
        return {}
    keys = node_keys(graph, profile, target, optimize)
    with closing(_open(path)) as connection:
        return {
            position: found[0]
            for position, key in enumerate(keys)
            if (found := _fastest(connection, key))
        }


def _fastest(connection: sqlite3.Connection, key: str) -> tuple[str, int] | None:
    query = (
        "select function, instructions from counts where key = ? order by instructions, function"
    )
    row: tuple[str, int] | None = connection.execute(query, (key,)).fetchone()
    return row


def tune(prepared: pipeline.Prepared, target: Target, clock: pipeline.Clock) -> Tuned:
    """Measure every candidate kernel of every node and keep the counts in the cache.

    Raises MismatchError when a candidate is not bit-exact: that kernel is broken.
    """
    graph, profile = prepared.graph, prepared.profile
    core = prepared.plan.selection.core
    keys = node_keys(graph, profile, target, core.optimize)
    names = [[k.function for k in candidates(graph, p, profile, core)] for p in range(len(keys))]
    rounds = max(map(len, names), default=0)
    runs = 0
    with (
        tempfile.TemporaryDirectory(prefix="tinydeploy-") as temporary,
        closing(_open(cache_path())) as connection,
        clock.stage("tune") as progress,
    ):
        folder = Path(temporary) / "out"  # one for all builds: most of the firmware stays
        first = 0
        for k in range(rounds):
            progress(k, rounds)
            wish = {p: own[min(k, len(own) - 1)] for p, own in enumerate(names) if own}
            if k and _known(connection, keys, wish):
                continue
            counts, used = _measure(prepared, target, core, wish, folder)
            runs += 1
            first = first or sum(counts.values())
            with connection:
                connection.executemany(
                    "insert or replace into counts values (?, ?, ?)",
                    [(keys[p], used[p], count) for p, count in counts.items()],
                )
        best = {p: f[0] for p, key in enumerate(keys) if (f := _fastest(connection, key))}
        counts, used = _measure(prepared, target, core, best, folder)
        after = sum(counts.values())
    default = select(graph, profile, core)
    changed = sum(
        1
        for p, kernel in enumerate(default.kernels)
        if kernel is not None and used[p] != kernel.function
    )
    return Tuned(first, after, changed, runs)


def _known(connection: sqlite3.Connection, keys: list[str], wish: Mapping[int, str]) -> bool:
    """Tell whether every wished-for kernel of a round was measured before."""
    query = "select 1 from counts where key = ? and function = ?"
    rows: Iterable[object] = (
        connection.execute(query, (keys[p], function)).fetchone() for p, function in wish.items()
    )
    return all(row is not None for row in rows)


def _measure(
    prepared: pipeline.Prepared,
    target: Target,
    core: Core,
    wish: Mapping[int, str],
    folder: Path,
) -> tuple[dict[int, int], dict[int, str]]:
    """Build and run with the wished-for kernels; return counts and functions per node."""
    graph, profile = prepared.graph, prepared.profile
    selection = select(graph, profile, core, wish)
    plan = plan_layers(graph, "greedy", selection, profile)
    variant = replace(prepared, plan=plan)
    silent = pipeline.Clock()
    generated = pipeline.generate_sources(variant, target, silent)
    level = pipeline.compiler_level(core.optimize)
    firmware = pipeline.build(variant, generated, target, folder, level, silent)
    measured = pipeline.run(variant, firmware, target, random_samples(graph, 1), silent)
    first = measured.verdict.first_mismatch
    if first is not None:
        raise MismatchError(
            "a kernel is not bit-exact",
            f"node {first.node} {first.op} '{first.name}' with "
            f"{selection.kernels[first.node or 0]}",
        )
    positions = [segment.nodes[-1] for segment in plan.segments]
    counts = dict(zip(positions, measured.counts, strict=True))
    used = {p: k.function for p, k in enumerate(selection.kernels) if k is not None}
    return counts, used
