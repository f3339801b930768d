"""The built wheel, installed into an empty environment, deploys on its own."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_wheel_deploys_from_an_empty_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, "."]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("templates", "targets", "firmware"):
        shipped = {n.split("/", 3)[-1] for n in names if n.startswith(f"tinydeploy/data/{folder}/")}
        present = {p.name for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert {Path(n).name for n in shipped} == present
    venv.create(tmp_path / "venv")
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "venv", "install", "--no-compile"]
    subprocess.run([*pip, "--quiet", str(wheel)], check=True, capture_output=True)
    (tmp_path / "model.tflite").write_bytes(
        (ROOT / "examples" / "digits" / "digits_int8.tflite").read_bytes()
    )
    result = subprocess.run(
        [tmp_path / "venv" / "bin" / "tinydeploy", "deploy", "model.tflite",
         "--target", "mps2-an386", "--samples", "2", "--json"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(result.stdout)["verify"]["bit_exact"]
