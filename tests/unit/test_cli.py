"""The command line as its user meets it: exit codes, JSON, sentences."""

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from commands import spawned, tinydeploy

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
DIGITS_TEST = ROOT / "examples" / "digits" / "digits_test.npz"
FLOAT = ROOT / "examples" / "digits" / "digits_float.tflite"
DEPLOY = ("deploy", DIGITS, "--target", "host", "--schedule", "layer")


def test_help_is_fast() -> None:
    spawned("--help")
    best = min(_seconds("--help") for _ in range(5))
    # 0.3 s is the promise; a loaded machine gets some slack.
    assert best < 0.6


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    spawned(*arguments)
    return time.perf_counter() - started


def test_help_imports_click_only() -> None:
    code = (
        "import sys; from tinydeploy.cli.main import cli; "
        "cli.main(['--help'], standalone_mode=False); "
        "heavy = {'numpy','rich','jinja2','msgspec','tflite','serial'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "command",
    [
        "deploy",
        "inspect",
        "plan",
        "generate",
        "build",
        "flash",
        "verify",
        "profile",
        "targets",
        "ops",
        "ports",
        "doctor",
    ],
)
def test_every_command_has_help(command: str) -> None:
    assert "--json" in tinydeploy(command, "--help").stdout


def test_plan_prints_and_draws(tmp_path: Path) -> None:
    svg = tmp_path / "plan.svg"
    layer = ("--schedule", "layer")
    text = tinydeploy("plan", DIGITS, "--svg", svg, "--target", "microbit", *layer).stdout
    assert "arena" in text and "does NOT fit" in text
    front = tinydeploy("plan", DIGITS, "--input", "streamed").stdout
    assert "front" in front and "<- this plan" in front
    root = ET.parse(svg).getroot()
    document = json.loads(tinydeploy("plan", DIGITS, "--json").stdout)
    memory = document["memory"]
    assert memory["optimal"] == (memory["arena_bytes"] == memory["lower_bound_bytes"])
    boxes = [e for e in root.iter() if e.tag.endswith("}rect")]
    assert len(boxes) > len(document["plan"]["segments"]) // 2


def test_generate_folder_and_zip(tmp_path: Path) -> None:
    tinydeploy("generate", DIGITS, "--out", tmp_path / "c")
    tinydeploy("generate", DIGITS, "--out", tmp_path / "c.zip")
    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert {"digits_int8.h", "digits_int8.c", "td_fixedpoint.h"} <= names
    assert "firmware_model.c" not in names
    assert (tmp_path / "c.zip").read_bytes()[:2] == b"PK"


def test_inspect() -> None:
    document = json.loads(tinydeploy("inspect", DIGITS, "--json").stdout)
    assert document["operators"]["CONV_2D"] > 1
    assert document["model"]["macs"] > 100_000


def test_lists() -> None:
    targets = {row["target"] for row in json.loads(tinydeploy("targets", "--json").stdout)}
    assert {
        "mps2-an385", "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "microbit",
        "netduinoplus2", "lm3s6965evb", "riscv-virt", "riscv-virt-rvv", "riscv-virt-zb",
        "hifive1", "host",
    } <= targets  # fmt: skip
    ops = json.loads(tinydeploy("ops", "--json").stdout)
    assert len(ops) >= 19 and all(row["supports"] for row in ops)
    tools = json.loads(tinydeploy("doctor", "--json").stdout)
    assert all(row["found"] for row in tools if row["needed"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["deploy", DIGITS, "--target", "nosuchboard"], 2, "unknown target"),
        (["deploy", DIGITS], 2, "--target"),
        (["deploy", ROOT / "README.md", "--target", "host"], 3, "not a model of a known kind"),
        (["deploy", ROOT / "missing.tflite", "--target", "host"], 3, "cannot be read"),
        (["plan", FLOAT], 3, "tinydeploy quantize"),
        (["deploy", DIGITS, "--target", "microbit", "--schedule", "layer"], 4, "does not fit"),
        (["deploy", DIGITS, "--target", "host", "--expect", DIGITS_TEST], 2, "--inputs"),
        (["verify", ROOT / "tests"], 2, "not a deployment folder"),
        (["frobnicate"], 2, "No such command"),
        (["deploy", DIGITS, "--target", "host", "--inputs", DIGITS], 2, "cannot be read as .npz"),
    ],
)
def test_errors_are_sentences(arguments: list[object], code: int, sentence: str) -> None:
    result = tinydeploy(*arguments, code=code)
    assert sentence in result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) <= 5


def test_does_not_fit_names_the_figures_and_the_node() -> None:
    text = tinydeploy(
        "deploy", DIGITS, "--target", "microbit", "--schedule", "layer", code=4
    ).stderr
    assert "16,384 available" in text and "node" in text


@pytest.mark.parametrize(
    ("stage", "text"), [("import", "graph digits_int8"), ("passes", "CONV_2D("), ("plan", "arena ")]
)
def test_dump_after_a_stage(stage: str, text: str) -> None:
    result = tinydeploy("plan", DIGITS, "--dump-after", stage, "--schedule", "layer", "--json")
    assert text in result.stderr
    assert json.loads(result.stdout)["memory"]["arena_bytes"] > 0


def test_a_fault_of_our_own_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from tinydeploy.cli import main

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(main.cli, "main", broken)
    with pytest.raises(SystemExit) as caught, CliRunner().isolation() as streams:
        main.run(["ops"])
    assert caught.value.code == 1
    assert b"surprise" in streams[1].getvalue()
    with pytest.raises(ZeroDivisionError):
        main.run(["ops", "--debug"])


def test_debug_shows_a_traceback() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tinydeploy", "deploy", "x", "--target", "host", "--debug"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "has no array 'in0'"),
        ({"in0": np.zeros((3, 5), np.int8)}, "wrong shape"),
        ({"in0": np.zeros((3, 28, 28, 1), np.float32)}, "wrong type"),
        ({"in0": np.full((3, 28, 28, 1), 300)}, "outside int8"),
        ({"in0": np.zeros((0, 28, 28, 1), np.int8)}, "no samples"),
        ({"in0": np.zeros((3, 28, 28, 1), np.int8), "labels": np.zeros(2, int)}, "labels"),
    ],
)
def test_bad_data_files(arrays: dict[str, np.ndarray], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    result = tinydeploy(*DEPLOY, "--inputs", path, code=2)
    assert sentence in result.stderr


def test_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, in0=np.array([{"a": 1}], dtype=object))
    assert "cannot be read" in tinydeploy(*DEPLOY, "--inputs", path, code=2).stderr


def test_output_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    result = tinydeploy(*DEPLOY, "--out", tmp_path, code=2)
    assert "already holds other files" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
