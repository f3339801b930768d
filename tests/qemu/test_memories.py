"""A board with small fast memories and large slow ones: divided over them, the same bits."""

import json
from pathlib import Path
from typing import Any

import pytest
from networks import residual_network

from tinydeploy import pipeline, resources
from tinydeploy.build.folder import load_firmware
from tinydeploy.build.size import rooms_of
from tinydeploy.cli.main import cli
from tinydeploy.errors import FitError
from tinydeploy.targets import Target, load_target

pytestmark = pytest.mark.qemu

# 16 MiB of PSRAM on the MPS2 board (QEMU hw/arm/mps2.c), as slow RAM and as slow flash.
SLOW = """
[[memories]]
name = "psram"
kind = "ram"
base = 0x21000000
size = 0x100000
cost = 4.0

[[memories]]
name = "xip"
kind = "flash"
base = 0x21800000
size = {xip}
cost = 8.0

[toolchain]"""


def board(folder: Path, ram: int, flash: int, xip: int = 0x100000) -> Path:
    """Write a variant of the M4 board with other memories."""
    text = (resources.folder("targets") / "mps2-an386.toml").read_text()
    text = text.replace("[toolchain]", SLOW.format(xip=xip)).replace('"mps2-an386"', '"small"', 1)
    text = text.replace("size = 0x400000", f"size = {flash}", 1)
    text = text.replace("size = 0x400000", f"size = {ram}", 1)
    path = folder / "small.toml"
    path.write_text(text)
    return path


def own_bytes(target: Target) -> int:
    return target.memory("data").size - rooms_of(target)[0].bytes


@pytest.mark.parametrize(("schedule", "room"), [("layer", 1_200), ("streamed", 600)])
def test_arenas_and_constants_in_two_memories_each(
    schedule: str,
    room: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "small.tflite"
    model.write_bytes(residual_network(size=24))
    own = own_bytes(load_target(board(tmp_path, 0x10000, 0x10000)))
    toml = board(tmp_path, own + room, 21_000)

    def run(*arguments: object) -> Any:
        assert cli.main([*map(str, arguments), "--json"], standalone_mode=False) == 0
        return json.loads(capsys.readouterr().out)

    out = tmp_path / "out"
    d = run("deploy", model, "-t", toml, "--schedule", schedule, "--out", out, "--samples", 2)
    assert d["verify"]["bit_exact"] and d["memory"]["fits"]
    uses = {m["name"]: m for m in d["memory"]["memories"]}
    assert uses["ssram23"]["arena_bytes"] > 0 < uses["psram"]["arena_bytes"]
    assert uses["psram"]["used_bytes"] == uses["psram"]["arena_bytes"]
    assert uses["ssram1"]["used_bytes"] <= 21_000 and uses["xip"]["used_bytes"] > 0
    assert {p["memory"] for p in d["plan"]["places"]} == {"ssram23", "psram"}
    assert (out / "firmware_slow.bin").stat().st_size == uses["xip"]["used_bytes"]
    assert (out / "firmware.bin").stat().st_size < 21_000
    toml.unlink()  # the folder has a copy
    prepared, target, _ = pipeline.reopen(out, pipeline.Clock())
    assert [a.memory for a in prepared.plan.several] == ["ssram23", "psram"]
    sizes = load_firmware(out, target).sizes
    assert sizes.arena_bytes == prepared.plan.arena_bytes == d["memory"]["arena_bytes"]
    assert sizes.slow_const_bytes == uses["xip"]["used_bytes"]


def test_each_memory_is_judged_by_itself(tmp_path: Path) -> None:
    model = tmp_path / "small.tflite"
    model.write_bytes(residual_network(size=24))
    target = load_target(board(tmp_path, 0x10000, 6_000, xip=64))
    clock = pipeline.Clock()
    prepared = pipeline.prepare(model, "litert", "greedy", clock)
    generated = pipeline.generate_sources(prepared, target, clock)
    with pytest.raises(FitError, match=r"flash \(xip\): [\d,]+ bytes of constants, 64 available"):
        pipeline.build(prepared, generated, target, tmp_path / "out", "-O2", clock)
