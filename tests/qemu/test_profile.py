"""Profiles: what they say, that they are kept, compared, and taken at several ports at once."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bad_line import Faults, bad_line
from commands import tinydeploy as told
from networks import residual_network
from rich.console import Console

from tinydeploy import history, pipeline, profiling
from tinydeploy.build.folder import load_firmware
from tinydeploy.cli.profile_tables import profile_table
from tinydeploy.errors import UsageError
from tinydeploy.profiling import NodeProfile, Profile, Spread
from tinydeploy.run.device import Device, open_device
from tinydeploy.run.qemu import start_qemu
from tinydeploy.targets import load_target
from tinydeploy.verify.samples import random_samples

pytestmark = pytest.mark.qemu
TARGET = "mps2-an386"


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kept" / "history.sqlite"
    monkeypatch.setenv("TINYDEPLOY_HISTORY", str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("profile")
    (base / "small.tflite").write_bytes(residual_network(size=8))
    told("deploy", base / "small.tflite", "--target", TARGET, "--out", base / "out",
         "--schedule", "layer")  # fmt: skip
    return base / "out"


def test_figures_are_kept_and_compared(
    folder: Path, tinydeploy: Callable[..., Any], own_history: Path
) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    author = ["-c", "user.name=x", "-c", "user.email=x@y"]
    commit = [*author, "commit", "-q", "--allow-empty", "-m", "x"]
    subprocess.run(["git", "-C", folder, *commit], check=True)
    first = tinydeploy("profile", folder, "--runs", 4, "--note", "as it was")["profile_run"]
    assert first["unit"] == "instructions" and first["runs"] == 4 and first["port"] == "qemu"
    for node in first["nodes"]:
        # An emulator counts exactly, to the 40 instructions that its timer's tick is.
        assert 0 < node["least"] <= node["count"] <= node["most"] <= node["least"] + 80
        assert "milliseconds" not in node  # never from an emulator
    second = tinydeploy("profile", folder)["profile_run"]
    tinydeploy("profile", folder, "--no-save")
    (one, two) = tinydeploy("profile", "--history", folder)
    assert [one["id"], two["id"]] == [first["id"], second["id"]] == [1, 2]
    made = one["circumstances"]
    assert made["note"] == "as it was" and made["folder"] == str(folder.resolve())
    assert made["compiler"].startswith("GCC: ") and "12." in made["compiler"]
    assert made["optimisation"] == "balanced -O2" and "arena" in made["plan"]
    assert len(made["commit"]) == 12 and made["version"]
    assert tinydeploy("profile", "--history", folder.parent) == []
    compared = tinydeploy("profile", "--compare", 1, 2)
    assert [n["name"] for n in compared["nodes"]] == [n["name"] for n in first["nodes"]]
    assert compared["total"]["percent"] == pytest.approx(0, abs=1)
    assert {"name": "note", "before": "as it was", "after": ""} in compared["circumstances"]
    assert own_history.is_file()

    # The same as text, and what is not there.
    text = told("profile", folder, "--runs", 2, "--no-save").stdout
    assert "MAC/instruction" in text and "total" in text and "stack" in text and " ms" not in text
    assert "as it was" in told("profile", "--history").stdout
    assert "total" in told("profile", "--compare", 1, 2).stdout
    assert "no profile 9" in told("profile", "--compare", 1, 9, code=2).stderr
    assert "nothing to profile" in told("profile", code=2).stderr
    own_history.write_text("not a database " * 100)
    assert "cannot be used" in told("profile", "--history", code=2).stderr


def test_several_ports_at_once(folder: Path, tinydeploy: Callable[..., Any]) -> None:
    """Two emulators behind a socket and an RFC 2217 server, one of them over a bad line."""
    target = load_target(TARGET)
    elf = load_firmware(folder, target).elf
    with ExitStack() as stack:
        ports = []
        for kind, rate in (("socket", 0.0), ("rfc2217", 0.001)):
            transport, process = start_qemu(elf, target, "uart")
            stack.callback(process.stop)
            ports.append(stack.enter_context(bad_line(transport, Faults(rate, 1), kind)))  # type: ignore[arg-type]
        missing = "/dev/no-such-port"
        named = [a for port in (ports[0], missing, ports[1]) for a in ("--port", port)]
        result = told("profile", folder, "--runs", 3, *named, "--json", code=6)
    documents = json.loads(result.stdout)
    assert [d["port"] for d in documents] == [ports[0], missing, ports[1]]
    good, bad, other = documents
    assert "there is no port" in bad["error"] and "there is no port" in result.stderr
    runs = [d["profile"]["profile_run"] for d in (good, other)]
    assert runs[0]["unit"] == runs[1]["unit"] == "instructions"  # an emulator behind a port is one
    assert runs[0]["total"] == pytest.approx(runs[1]["total"], rel=0.02)
    assert [r.profile.port for r in history.list_runs()] == ports


def test_a_board_s_cycles_become_milliseconds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same emulator, taken for a board."""
    prepared, target, _ = pipeline.reopen(folder, pipeline.Clock())
    firmware = load_firmware(folder, target)

    def board(*arguments: Any) -> Device:
        device = open_device(firmware, target)
        device._unit, device._clock_hz = "cycles", 50_000_000  # its timer runs at 25 MHz
        return device

    monkeypatch.setattr(pipeline, "device", board)
    seen: list[Profile] = []
    samples = random_samples(prepared.graph, 1)
    _, profile = profiling.measure(
        prepared, firmware, target, samples, 3, pipeline.Place(), seen.append
    )
    assert seen[0].runs == 1 and profile.runs == 3
    assert profile.total.median == sum(node.count.median for node in profile.nodes)
    assert profile.milliseconds(25_000) == 1.0
    text = io.StringIO()
    Console(file=text, width=160).print(profile_table(profile, 9))
    assert " ms" in text.getvalue() and "3 of 9 runs" in text.getvalue()


def profile_of(unit: str, **counts: int) -> Profile:
    nodes = tuple(NodeProfile(name[0], "ADD", 0, Spread(c, c, c)) for name, c in counts.items())
    total = Spread(*[sum(counts.values())] * 3)
    return Profile("t", "p", "m", "0", unit, 1, 1, total, nodes, 0)


def test_nodes_are_matched_by_name() -> None:
    changes = history.compare(
        profile_of("cycles", a1=10, a2=20, b=5), profile_of("cycles", a1=11, c=7, a2=10)
    )
    assert [(c.name, c.before, c.after, c.percent) for c in changes] == [
        ("a", 10, 11, 10.0), ("c", None, 7, None), ("a", 20, 10, -50.0), ("b", 5, None, None),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="one counts cycles, the other instructions"):
        history.compare(profile_of("cycles"), profile_of("instructions"))


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TINYDEPLOY_HISTORY")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert history.history_path() == tmp_path / "tinydeploy" / "history.sqlite"
    assert history.git_commit(tmp_path) == ""
    number = history.save(profile_of("cycles", a=3), history.circumstances(tmp_path, "c", "o", "p"))
    assert history.load(number).profile == profile_of("cycles", a=3)
