"""The command line of flashing: what it prints, and how it ends."""

import json
import shlex
import stat
from pathlib import Path

import pytest
from commands import tinydeploy
from elf_file import write_elf

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as deploy leaves it, for a board that no emulator stands in for."""
    out = tmp_path_factory.mktemp("flash") / "out"
    tinydeploy("deploy", DIGITS, "--target", "host", "--out", out, "--samples", 1)
    manifest = json.loads((out / "tinydeploy.json").read_text())
    manifest["target"] = "nucleo-f446re"
    (out / "tinydeploy.json").write_text(json.dumps(manifest))
    write_elf(out / "firmware.elf", 0x08000000, bytes(64))
    return out


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tinydeploy.run.flash.base._beside", lambda name: None)
    return tmp_path


def program(path: Path, name: str, script: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod((path / name).stat().st_mode | stat.S_IXUSR)


def test_dry_run_touches_nothing(deployed: Path, path: Path) -> None:
    program(path, "openocd", f"echo ran > {shlex.quote(str(path / 'ran'))}")
    text = tinydeploy("flash", deployed, "--dry-run", "--probe", "066DFF").stdout
    folder, command = (shlex.split(line) for line in text.splitlines())
    assert folder == ["cd", str(deployed)]
    assert command[:3] == [str(path / "openocd"), "-c", "adapter serial 066DFF"]
    assert "board/st_nucleo_f4.cfg" in command
    document = json.loads(tinydeploy("flash", deployed, "--dry-run", "--json").stdout)
    assert document["runner"] == "openocd" and document["target"] == "nucleo-f446re"
    assert not (path / "ran").exists()


def test_flash_says_what_it_did(deployed: Path, path: Path) -> None:
    program(path, "pyocd", "echo 100%")
    result = tinydeploy("flash", deployed)
    assert "flashed nucleo-f446re with pyocd in" in result.stdout and "100%" not in result.stderr
    assert "100%" in tinydeploy("flash", deployed, "-v").stderr
    document = json.loads(tinydeploy("flash", deployed, "--json").stdout)
    assert document["seconds"] >= 0 and document["commands"][0][1] == "flash"


def test_exit_codes(deployed: Path, path: Path, tmp_path: Path) -> None:
    error = tinydeploy("flash", deployed, code=5).stderr
    assert "apt install openocd" in error and "tinydeploy[pyocd]" in error
    error = tinydeploy("flash", deployed, "--runner", "openocd", code=5).stderr
    assert "openocd is not installed" in error
    program(path, "openocd", "echo 'Error: open failed' >&2; exit 1")
    error = tinydeploy("flash", deployed, code=6).stderr
    assert "Error: open failed" in error and "plugged in" in error
    program(path, "openocd", "/bin/sleep 60")
    error = tinydeploy("flash", deployed, "--timeout", 1, code=6).stderr
    assert "did not finish" in error and "--timeout" in error
    assert (
        "no chip of Espressif's"
        in tinydeploy("flash", deployed, "--runner", "esptool", code=2).stderr
    )
    assert "not a deployment folder" in tinydeploy("flash", tmp_path, code=2).stderr
    tinydeploy("flash", deployed, "--runner", "dd", code=2)


def test_deploy_flash_needs_the_port_it_is_proven_over() -> None:
    error = tinydeploy("deploy", DIGITS, "--target", "nucleo-f446re", "--flash", code=2).stderr
    assert "--flash needs --port" in error


def test_deploy_flash_says_before_it_builds_what_is_missing(path: Path) -> None:
    arguments = ("--target", "nucleo-f446re", "--flash", "--port", "/dev/ttyNO")
    error = tinydeploy("deploy", "no-such.tflite", *arguments, code=5).stderr
    assert "nothing to flash nucleo-f446re with" in error
