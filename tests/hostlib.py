"""Turn graphs into one shared library that runs them on the host, through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from tinydeploy.codegen import Provenance, SourceTree, generate
from tinydeploy.codegen.names import identifier
from tinydeploy.codegen.regions import region_at, regions_of
from tinydeploy.ir import Graph
from tinydeploy.numerics.profile import PROFILES, IntegerProfile
from tinydeploy.ops.execute import run_outputs
from tinydeploy.plan.layout import MemoryPlan
from tinydeploy.plan.planner import plan_layers
from tinydeploy.plan.select import Core, select

CANARY_BYTES = 64
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wcast-qual", "-Wpedantic", "-Werror")
SANITIZE = ("-O1", "-fsanitize=undefined", *STRICT)
_TIMEOUT = 300
# Symbols that are private to one generated file, and would clash when files are joined.
_KERNELS = (r"static \w+ (td_\w+)\(", r"\} (td_\w+_params);")
_LOADED: dict[str, ctypes.CDLL] = {}
_RUNS = r"static void (run_nodes_\d+)\("
_NODES = r"static void run_(node_\d+)\("


def sources_of(graph: Graph, plan: MemoryPlan, profile: IntegerProfile) -> SourceTree:
    return generate(graph, plan, profile, Provenance("model", "", "host", "test")).sources


_READ = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p
)


def _reader(inputs: Sequence[NDArray[Any]]) -> Any:
    """Return a function that delivers bytes of inputs to C, as a network asks for them."""
    contents = [array.tobytes() for array in inputs]

    def read(user: object, slot: int, at: int, count: int, to: int) -> None:
        assert at + count <= len(contents[slot])
        ctypes.memmove(to, contents[slot][at : at + count], count)

    return read


@dataclass(frozen=True, slots=True, eq=False)
class HostModel:
    """Run the generated C of a graph."""

    graph: Graph
    plan: MemoryPlan
    library: ctypes.CDLL

    def run(self, inputs: Sequence[NDArray[Any]], fill: int = 0x5A) -> list[NDArray[Any]]:
        """Return the outputs; memories start full of garbage, each between two canaries."""
        regions = regions_of(self.graph, self.plan)
        blocks = [np.full(r.bytes + 2 * CANARY_BYTES + 64, fill, np.uint8) for r in regions]
        memories: list[NDArray[np.uint8]] = []
        for block, region in zip(blocks, regions, strict=True):
            start = -block.ctypes.data % 64 + CANARY_BYTES
            block[start - CANARY_BYTES : start] = 0xC3
            block[start + region.bytes :] = 0xC3
            memories.append(block[start : start + region.bytes])

        def place(index: int) -> NDArray[np.uint8]:
            at = self.plan.offset_of(index)
            region = region_at(regions, at)
            first = at - region.offset
            size = self.graph.tensors[index].bytes
            return memories[regions.index(region)][first : first + size]

        streamed = self.plan.streamed_input
        for array, index in zip(inputs, self.graph.inputs, strict=True):
            if not streamed:
                place(index)[:] = array.view(np.uint8).reshape(-1)
        before = [m.copy() for m in memories]
        pointers = (ctypes.c_void_p * len(regions))(*(m.ctypes.data for m in memories))
        address = pointers if len(regions) > 1 else ctypes.c_void_p(pointers[0])
        sizes = () if len(regions) > 1 else (ctypes.c_size_t(max(regions[0].bytes, 4)),)
        name = identifier(self.graph.name)
        assert self.library[f"{name}_init"](address, *sizes) == 0
        if streamed:
            self.library[f"{name}_invoke_rows"](address, _READ(_reader(inputs)), None)
        else:
            self.library[f"{name}_invoke"](address)
        for block, memory, given, region in zip(blocks, memories, before, regions, strict=True):
            start = memory.ctypes.data - block.ctypes.data
            assert np.all(block[start - CANARY_BYTES : start] == 0xC3), "wrote below the arena"
            assert np.all(block[start + region.bytes :] == 0xC3), "wrote above the arena"
            assert region.slot < 0 or np.array_equal(memory, given), "wrote to an input in flash"
        return [
            place(o).view(tensor.dtype.numpy).reshape(tensor.shape).copy()
            for o in self.graph.outputs
            for tensor in (self.graph.tensors[o],)
        ]


def compile_all(
    graphs: Sequence[Graph],
    profile: IntegerProfile,
    *,
    plans: Sequence[MemoryPlan] | None = None,
    flags: Sequence[str] = ("-O1",),
    compiler: str = "gcc",
) -> list[HostModel]:
    """Compile graphs of different names in one compiler call and load them.

    All files are joined into one translation unit, their private symbols renamed and equal
    kernels compiled once: starting the compiler for every file would take most of the time.
    """
    plans = plans or [plan_layers(g, profile=profile) for g in graphs]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        joined = []
        first_with: dict[str, str] = {}
        for graph, plan in zip(graphs, plans, strict=True):
            tree = sources_of(graph, plan, profile)
            tree.write(root)
            name = identifier(graph.name)
            kernels = tree[f"{name}_kernels.h"].decode()
            owner = first_with.setdefault(kernels.replace(name.upper(), ""), name)
            renamed = {s: f"{s}_of_{owner}" for p in _KERNELS for s in re.findall(p, kernels)}
            for run in re.findall(_RUNS, tree[f"{name}.c"].decode()):
                renamed[run] = f"{run}_of_{name}"
            for node in re.findall(_NODES, tree[f"{name}.c"].decode()):
                renamed |= {s: f"{s}_of_{name}" for s in (node, f"run_{node}")}
            joined += [f"#define {old} {new}" for old, new in sorted(renamed.items())]
            if owner != name:
                joined.append(f"#define {name.upper()}_KERNELS_H")
            joined += [f'#include "{name}.c"', f'#include "{name}_weights.c"']
            joined += [f"#undef {old}" for old in sorted(renamed)]
        (root / "joined.c").write_text("\n".join(joined) + "\n")
        library = _library(root, profile, ["-shared", "-fPIC", *flags], compiler)
    return [HostModel(g, p, library) for g, p in zip(graphs, plans, strict=True)]


def check_sanitized(graphs: Sequence[Graph], kernels: str, random: Generator, capfd: Any) -> None:
    """Compare C with undefined behaviour reported with the reference, for all profiles.

    All nodes must use kernels that have `kernels` in their names.
    """
    for profile in PROFILES.values():
        for graph in graphs:
            chosen = select(graph, profile, Core()).kernels
            assert all(k is not None and kernels in k.function for k in chosen)
        for graph, host in zip(graphs, compile_all(graphs, profile, flags=SANITIZE), strict=True):
            for _ in range(2):
                shapes = [graph.tensors[i].shape for i in graph.inputs]
                inputs = [random.integers(-128, 128, shape, np.int8) for shape in shapes]
                wanted = run_outputs(graph, inputs, profile)
                for got, value in zip(host.run(inputs), wanted, strict=True):
                    np.testing.assert_array_equal(got, value)
    said = capfd.readouterr().err
    assert "runtime error" not in said, said[:2000]


def _library(
    root: Path, profile: IntegerProfile, flags: Sequence[str], compiler: str
) -> ctypes.CDLL:
    """Compile and load root/joined.c, once for profiles that lead to the same code."""
    sha = hashlib.sha256(repr((flags, compiler)).encode())
    for path in sorted(root.iterdir()):
        named = f'Integer semantics: "{profile.name}"'.encode()
        if path.name != "firmware_model.c":
            sha.update(path.read_bytes().replace(named, b""))
    key = sha.hexdigest()
    if key not in _LOADED:
        shared = root / "joined.so"
        compile_c([root / "joined.c"], shared, flags, compiler)
        _LOADED[key] = ctypes.CDLL(str(shared))
    return _LOADED[key]


def compile_c(
    files: Sequence[Path], output: Path, flags: Sequence[str] = (), compiler: str = "gcc"
) -> None:
    """Call the compiler; fails with what it says."""
    result = subprocess.run(
        [compiler, "-std=c99", *flags, "-o", str(output), *map(str, files)],
        capture_output=True, text=True, timeout=_TIMEOUT, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[:4000]
