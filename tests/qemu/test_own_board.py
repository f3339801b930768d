"""A folder deployed for a board file of the user's opens without that file, and only unchanged."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from commands import tinydeploy

from tinydeploy import pipeline, resources
from tinydeploy.manifest import load_board, read_manifest

pytestmark = pytest.mark.qemu

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits_int8.tflite"
BOARD = (
    (resources.folder("targets") / "netduinoplus2.toml")
    .read_bytes()
    .replace(b'name = "netduinoplus2"', b'name = "mine"', 1)
    .replace(b'openocd = "target/stm32f4x.cfg"', b'openocd = "interface/mine.cfg"', 1)
)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "out"
    original = out.parent / "any name.toml"
    original.write_bytes(BOARD)
    tinydeploy("deploy", DIGITS, "--target", original, "--out", out, "--samples", 1)
    original.unlink()
    return out


@pytest.fixture
def folder(deployed: Path, tmp_path: Path) -> Path:
    """A copy elsewhere, to change."""
    return Path(shutil.copytree(deployed, tmp_path / "moved"))


def test_the_copy_is_what_was_read(deployed: Path) -> None:
    assert (deployed / "board.toml").read_bytes() == BOARD
    board = json.loads((deployed / "tinydeploy.json").read_text())["board"]
    assert board == {"copy": "board.toml", "sha256": sha256(BOARD).hexdigest()}


def test_every_command_opens_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for mine" in tinydeploy("build", folder).stdout
    for command in (("verify", "--samples", 1), ("profile", "--no-save")):
        document = json.loads(tinydeploy(command[0], folder, *command[1:], "--json").stdout)
        assert document["verify"]["bit_exact"] and document["target"] == "mine"
    tinydeploy("export", folder, "--format", "cmake", "--out", folder.parent / "library")
    tools = folder.parent / "tools"
    tools.mkdir()
    (tools / "openocd").write_text("#!/bin/sh\necho $*\n")
    (tools / "openocd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr("tinydeploy.run.flash.base._beside", lambda name: None)
    result = tinydeploy("flash", folder, "-v")
    assert "interface/mine.cfg" in result.stderr and "flashed mine with openocd" in result.stdout


def test_a_folder_is_deployed_again_from_what_it_holds(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    tinydeploy(
        "deploy", folder / "model.tflite", "--target", folder / "board.toml", "--out", folder,
        "--samples", 1,
    )  # fmt: skip
    for name in ("board.toml", "model.tflite"):
        assert (folder / name).read_bytes() == before[name]
    assert pipeline.reopen(folder, pipeline.Clock())[1].name == "mine"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOARD + b"\n# later\n", "is not the board file that was deployed for"),
        (b"name =", "is not a valid board file"),
        (None, "cannot read the board file"),
    ],
)
def test_another_copy_is_refused(folder: Path, content: bytes | None, said: str) -> None:
    (folder / "board.toml").unlink()
    if content is not None:
        (folder / "board.toml").write_bytes(content)
    for command in ("build", "verify", "profile", "flash"):
        error = tinydeploy(command, folder, code=2).stderr
        assert said in error and str(folder / "board.toml") in error


@pytest.mark.parametrize("copy", ["../board.toml", "/etc/passwd", "sub/board.toml", ""])
def test_a_copy_lies_in_its_folder(folder: Path, copy: str) -> None:
    manifest = json.loads((folder / "tinydeploy.json").read_text())
    manifest["board"]["copy"] = copy
    (folder / "tinydeploy.json").write_text(json.dumps(manifest))
    assert "tinydeploy.json is damaged" in tinydeploy("verify", folder, code=2).stderr


def test_a_name_of_another_board_changes_nothing(folder: Path) -> None:
    """The file counts, also where its board is called like one that ships with tinydeploy."""
    text = BOARD.replace(b'"mine"', b'"microbit"', 1)
    (folder / "board.toml").write_bytes(text)
    manifest = json.loads((folder / "tinydeploy.json").read_text())
    manifest.update(target="microbit", board={"sha256": sha256(text).hexdigest()})
    (folder / "tinydeploy.json").write_text(json.dumps(manifest))
    board = load_board(folder, read_manifest(folder))
    assert (board.name, board.isa, board.file) == ("microbit", "armv7e-m", text)


def test_boards_that_ship_with_tinydeploy_stay_by_name(tmp_path: Path) -> None:
    tinydeploy("deploy", DIGITS, "--target", "host", "--out", tmp_path / "out", "--samples", 1)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.board is None and not (tmp_path / "out" / "board.toml").exists()
    assert not load_board(tmp_path / "out", manifest).file
