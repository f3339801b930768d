"""Check that names from a file do no harm in the C that is generated from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from builder import Builder
from hostile import LITERT
from hostlib import STRICT, compile_c

from tinydeploy.codegen import Provenance, generate
from tinydeploy.codegen.names import comment, identifier
from tinydeploy.importers.tflite import read_bytes
from tinydeploy.passes import run_passes
from tinydeploy.plan.planner import plan_layers

NAMES = [
    "", " ", "line\nbreak", 'quote"', "*/ int evil; /*", "*\\/", "*\\", "/*", "\\", "back\\slash",
    "??/", "???/", "?????/", "??)", "é?/", "Zürich 🚲", "int", "a" * 500, "td_fixedpoint",
    "td_rows",
    "stdint", "stddef", "firmware_model", "td_firmware", "1st", "___", "%s%n", "{{ 7 * 7 }}",
    "{% x %}",
    "\x00nul", "\u2028", "..", "../../etc/passwd", "CON", "*/\x0a#error",
]  # fmt: skip


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_hostile_names_compile(compiler: str, tmp_path: Path) -> None:
    """Every name as model, tensor and node name at once; trigraphs are on in strict C99."""
    for k, name in enumerate(NAMES):
        b = Builder()
        x = b.tensor((1, 4), name=name.encode())
        y = b.tensor((1, 4), name=(name + "\\").encode())
        b.operator("ADD", [x, x], y)
        graph = run_passes(read_bytes(b.build([x], [y]), name), LITERT)
        folder = tmp_path / str(k)
        tree = generate(
            graph, plan_layers(graph, "greedy"), LITERT, Provenance(name, "", name, name)
        ).sources
        assert len(tree) == 8, name  # no file took the name of another
        tree.write(folder)
        stem = identifier(name)
        (folder / "main.c").write_text(
            f'#include "{stem}.c"\n#include "{stem}_weights.c"\nint main(void)\n'
            f"{{ static uint32_t arena[({stem.upper()}_ARENA_BYTES + 3) / 4];\n"
            f"  return {stem}_init(arena, sizeof arena); }}\n"
        )
        compile_c([folder / "main.c"], folder / "a.out", ["-trigraphs", *STRICT], compiler)
        assert subprocess.run([folder / "a.out"], timeout=10, check=False).returncode == 0
        for path in tree:
            assert tree[path].isascii(), (name, path)
            assert "/" not in path and ".." not in path


@pytest.mark.parametrize("text", NAMES)
def test_names_become_safe(text: str) -> None:
    for limit in range(1, 24):
        safe = comment(text, limit)
        assert safe.isascii() and safe.isprintable()
        assert not any(bad in safe for bad in ("*/", "/*", "\\", "??"))
    name = identifier(text)
    assert name.isidentifier() and name.isascii() and name == name.lower() and len(name) <= 48


def test_random_comments_are_safe() -> None:
    random = np.random.default_rng(0)
    for _ in range(5000):
        text = "".join(random.choice(list("*/\\?a\né"), random.integers(0, 12)))
        safe = comment(text)
        assert not any(bad in safe for bad in ("*/", "/*", "\\", "??")), text
