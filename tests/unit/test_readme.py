"""The README's tables are what the code says, and its C does what it says."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hostlib import STRICT
from kernel_lab import Net
from networks import residual_network

from tinydeploy import pipeline
from tinydeploy.codegen import Provenance, generate
from tinydeploy.numerics.profile import profile_named
from tinydeploy.ops.execute import run_outputs
from tinydeploy.plan import search
from tinydeploy.plan.search import Wanted
from tinydeploy.plan.select import portable
from tinydeploy.report.readme import with_tables
from tinydeploy.targets import load_target

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DIGITS = ROOT / "examples" / "digits"


def test_tables_are_current() -> None:
    assert "| DEPTHWISE_CONV_2D |" in README and "| mps2-an386 |" in README
    assert with_tables(README) == README, "run: python -m tinydeploy.report.readme README.md"


CAMERA = r"""
#include <stdio.h>

struct camera { int line; uint8_t image[MODEL_INPUT_0_BYTES]; };

const uint8_t *camera_next_line(struct camera *camera)
{
    return camera->image + (uint32_t)camera->line++ * MODEL_INPUT_0_ROW_BYTES;
}

int main(void)
{
    static struct camera camera;
    while (fread(camera.image, 1, sizeof camera.image, stdin) == sizeof camera.image) {
        camera.line = 0;
        fwrite(classify(&camera), 1, MODEL_OUTPUT_0_BYTES, stdout);
        if (camera.line != MODEL_INPUT_0_BYTES / MODEL_INPUT_0_ROW_BYTES) {
            return 1;
        }
    }
    return 0;
}
"""


def test_headers_say_when_rows_are_read_again() -> None:
    net = Net(np.random.default_rng(3), "strips")
    x = net.input(33, 31, 2)
    for channels in (6, 6, 8):
        x = net.depthwise(net.conv(x, channels, (3, 3)), (3, 3), stride=2 if channels > 6 else 1)
    net.output(net.conv(x, 3))
    graph, litert = net.graph(), profile_named("litert")
    for factor in (1.0, 2.0):
        wanted = Wanted("streamed", streamed_input=True, mac_factor=factor)
        _, front = search.plan(
            graph, litert, portable(graph, litert), wanted, "greedy", lambda g: portable(g, litert)
        )
        choice = front[0]  # least RAM
        assert (len([s for s in choice.plan.segments if s.feeds]) > 1) == (factor > 1)
        made = generate(choice.graph, choice.plan, litert, Provenance("strips", "", "host", ""))
        again = b"from the first one again for each strip" in made.sources["strips.h"]
        assert again == (factor > 1)


@pytest.mark.parametrize("by_rows", [False, True])
def test_the_camera_of_the_readme(by_rows: bool, tmp_path: Path) -> None:
    """Its code, word for word, around two networks: strict compilers, the same bits."""
    section = README.partition("## A camera, line by line\n")[2]
    (snippet,) = re.findall(r"```c\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    model = tmp_path / "model.tflite"
    example = (DIGITS / "digits_int8.tflite").read_bytes()
    model.write_bytes(residual_network(size=28) if by_rows else example)
    clock = pipeline.Clock()
    wanted = Wanted("streamed", streamed_input=True)
    prepared = pipeline.prepare(model, "litert", "greedy", clock, wanted=wanted)
    assert any(segment.feeds for segment in prepared.plan.segments)
    pipeline.generate_sources(prepared, load_target("host"), clock).sources.write(tmp_path)
    (tmp_path / "main.c").write_text(snippet + CAMERA)
    sources = ["main.c", "model.c", "model_weights.c"]
    for compiler in ("clang", "gcc"):
        command = [compiler, "-std=c99", "-O1", *STRICT, *sources, "-o", "camera"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    with np.load(DIGITS / "digits_test.npz") as archive:
        images = archive["in0"][:10]
    pixels = (images.astype(np.int16) + 128).astype(np.uint8)
    result = subprocess.run(
        [tmp_path / "camera"], input=pixels.tobytes(), capture_output=True, check=True, timeout=60
    )
    expected = [run_outputs(prepared.graph, [image[None]], prepared.profile)[0] for image in images]
    assert result.stdout == b"".join(scores.tobytes() for scores in expected)
