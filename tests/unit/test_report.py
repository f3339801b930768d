"""The HTML page: complete, self-contained, and closed to what a model would like to put in it."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builder import Builder
from chromium import open_page

from tinydeploy import pipeline
from tinydeploy.plan.describe import in_use, places, segment_views
from tinydeploy.plan.search import Schedule, Wanted
from tinydeploy.report import document as doc
from tinydeploy.report.assemble import assemble
from tinydeploy.report.front import FrontPoint, front_svg, undominated
from tinydeploy.report.memory_map import axes_of, memory_map_svg
from tinydeploy.report.page import Reproduction, report_html
from tinydeploy.report.svg import compact, short_name, ticks
from tinydeploy.targets import load_target

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits_int8.tflite"
EVIL = "</title></svg><script>document.title='broken into'</script><img src=http://evil.test/x>"
FRONT = (
    FrontPoint("layer by layer", 13_000, 1_400_000, 50_000, 1.0, False),
    FrontPoint("streamed", 8_000, 1_500_000, 52_000, 1.0, True),
    FrontPoint("<b>worse</b>", 14_000, 1_600_000, 52_000, 1.2, False),
)


@cache
def prepared(schedule: Schedule = "streamed") -> tuple[pipeline.Prepared, pipeline.Clock]:
    clock = pipeline.Clock()
    return pipeline.prepare(DIGITS, "litert", "auto", clock, wanted=Wanted(schedule)), clock


def page_of(name: str = "digits", *, evil: bool = False) -> str:
    p, clock = prepared()
    graph = p.graph
    if evil:
        graph = graph.replace(
            name=EVIL,
            nodes=tuple(replace(n, name=EVIL) for n in graph.nodes),
            tensors=tuple(replace(t, name=EVIL) for t in graph.tensors),
        )
    target = load_target("mps2-an386")
    document = assemble(graph, p.plan, p.profile, name, p.macs, clock.stages, target)
    document = msgspec.structs.replace(document, explain=why(name))
    return report_html(
        document, graph, p.plan, Reproduction(f"tinydeploy plan {name}", {name: name}), target,
        FRONT,
    )  # fmt: skip


def why(name: str) -> doc.ExplainFigures:
    ring = doc.PeakBuffer(
        name=name, kind="ring", shape=[1, 14, 14, 8], bytes=700, whole_bytes=800, rows_held=7,
        rows=14, readers=[3, 6], waits_for=[3],
    )  # fmt: skip
    smaller = doc.VariantFigures(
        node=3, op=name, change="kernel", before="7x7", after="3x3", arena_bytes=500, searched=False
    )
    return doc.ExplainFigures(
        nodes=[3, 4], kind="streamed", alive_bytes=900, next_alive_bytes=800, buffers=[ring],
        variants=[smaller], untried=2,
    )  # fmt: skip


class Elements(HTMLParser):
    """Collect the elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_shows_all_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(page_of(), encoding="utf-8")
    dom, asked = open_page(page, "--dump-dom")
    assert asked == []
    for part in ("fit", "memory-map", "explanation", "front", "plan", "reproduce"):
        assert f'<section id="{part}"' in dom
    assert dom.count("<svg") == 2
    p, _ = prepared()
    assert len(drawn(dom)) == len(p.plan.buffers) + len(p.plan.items.rows)
    assert dom.count('<path class="td-line" stroke-width="1.6"') == sum(
        s.kind == "streamed" for s in p.plan.segments
    )
    assert f"{p.plan.arena_bytes:,}" in dom


@pytest.mark.parametrize("width", [390, 1100])
def test_a_screenshot_is_not_blank(width: int, tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(page_of(), encoding="utf-8")
    _, asked = open_page(page, f"--screenshot={picture}", f"--window-size={width},900")
    assert asked == []
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, 900)
    assert len(data) > 20_000  # an empty page compresses to far less


def test_dark_on_a_phone_and_on_paper(tmp_path: Path) -> None:
    """The ground is as dark as the reader's system wants it, nothing is wider than the screen, and
    all sections are printed.
    """
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    asks = (
        "<script>document.title = getComputedStyle(document.body).backgroundColor.slice(4, -1) + "
        "';' + (document.documentElement.scrollWidth - innerWidth)</script></body>"
    )
    forbids = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    page.write_text(forbids.sub("", page_of()).replace("</body>", asks), encoding="utf-8")
    grounds = []
    for scheme in ("0", "1"):  # Blink's PreferredColorScheme: dark, light
        dom, _ = open_page(
            page, "--dump-dom", "--window-size=390,900",
            f"--blink-settings=preferredColorScheme={scheme}",
        )  # fmt: skip
        ground, beyond = re.findall(r"<title>([0-9, ]+);(-?\d+)</title>", dom)[0]
        grounds.append(max(map(int, ground.split(","))))
        assert int(beyond) <= 0
    assert grounds[0] < 64 and grounds[1] > 192
    page.write_text(page_of(), encoding="utf-8")
    open_page(page, f"--print-to-pdf={paper}")
    assert paper.read_bytes()[:5] == b"%PDF-" and paper.read_bytes().count(b"/Type /Page\n") > 1


def test_a_model_cannot_inject(tmp_path: Path) -> None:
    text = page_of(EVIL, evil=True)
    elements = Elements(text)
    assert "script" not in {tag for tag, _ in elements.found}
    assert "img" not in {tag for tag, _ in elements.found}
    assert not [a for _, attrs in elements.found for a in attrs if a.startswith("on")]
    page = tmp_path / "report.html"
    page.write_text(text, encoding="utf-8")
    dom, asked = open_page(page, "--dump-dom")
    assert asked == [] and "<title>broken into" not in dom and "<script" not in dom


def test_nothing_refers_to_another_place() -> None:
    for tag, attributes in Elements(page_of()).found:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or ""
            assert value in ("", "data:,"), (tag, name, value)
        style = attributes.get("style") or ""
        assert "url(" not in style
    sheets = "".join(re.findall(r"<style>(.*?)</style>", page_of(), re.S))
    assert "url(" not in sheets and "@import" not in sheets


def test_the_network_check_notices_a_request(tmp_path: Path) -> None:
    page = tmp_path / "leak.html"
    page.write_text('<img src="http://elsewhere.test/x.png">', encoding="utf-8")
    _, asked = open_page(page, "--dump-dom")
    assert any("elsewhere.test" in a for a in asked)


def test_pages_repeat_byte_for_byte() -> None:
    page = page_of()
    prepared.cache_clear()
    assert page_of() == page


def test_deploy_writes_the_whole_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    subprocess.run(
        [sys.executable, "-m", "tinydeploy", "deploy", DIGITS, "--target", "host", "--samples", "2",
         "--report", page, "--json"],
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    dom, asked = open_page(page, "--dump-dom")
    assert asked == []
    assert "bit-exact" in dom and '<section id="cost"' in dom and "Flash" in dom
    assert "tinydeploy deploy digits_int8.tflite --target host --samples 2" in dom
    assert str(tmp_path) not in dom
    assert "gcc" in dom  # the versions of what built it


def test_plan_writes_a_page_and_names_segments(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = subprocess.run(
        [sys.executable, "-m", "tinydeploy", "plan", DIGITS, "--schedule", "streamed", "--json",
         "--report", page],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    segments = json.loads(result.stdout)["plan"]["segments"]
    streamed = [s for s in segments if s["kind"] == "streamed"]
    assert any(s["rings"] for s in streamed)
    assert all(s["scratch_bytes"] <= s["alive_bytes"] for s in segments)
    assert all(len(s["nodes"]) == len(s["ops"]) for s in segments)
    arena = json.loads(result.stdout)["memory"]["arena_bytes"]
    assert max(s["alive_bytes"] for s in segments) <= arena
    front = json.loads(result.stdout)["plan"]["front"]
    assert len(front) > 1 and [p["arena_bytes"] for p in front if p["chosen"]] == [arena]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "row by row" in text and "<b>(chosen)</b>" in text


def drawn(svg: str) -> list[list[tuple[float, ...]]]:
    """Return the boxes (left, top, width, height) of each path that shows memory."""
    paths = re.findall(
        r'</title><path (?:class="td-(?:scratch|padding|edge)"|fill)[^>]* d="([^"]*)', svg
    )
    box = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z")
    assert "".join(m[0] for path in paths for m in box.finditer(path)) == "".join(paths)
    return [[tuple(map(float, b)) for b in box.findall(path)] for path in paths]


@pytest.mark.parametrize("schedule", ["streamed", "layer"])
def test_every_piece_is_drawn_where_and_when_it_is_in_use(schedule: Schedule) -> None:
    """Boxes are the pieces of the plan and cover, call by call, the bytes that are in use."""
    p, _ = prepared(schedule)
    svg, axes = memory_map_svg(p.graph, p.plan), axes_of(p.plan)
    found, alive = places(p.graph, p.plan), p.plan.items.alive
    top, right = axes.y(p.plan.arena_bytes), axes.edges[-1]
    ends = len(alive) - 1
    for place, boxes in zip(found, drawn(svg), strict=True):
        expected = [
            (axes.x(first), axes.y(end), axes.x(min(last, ends) + 1), axes.y(start))
            for start, end, first, last in place.pieces.tolist()
        ]
        got = [(x, y, x + wide, y + high) for x, y, wide, high in boxes]
        assert np.allclose(got, expected, atol=0.02)
        assert all(x >= axes.edges[0] - 0.02 and y >= top - 0.02 for x, y, *_ in got)
        assert all(x <= right + 0.02 and y <= axes.floor + 0.02 for *_, x, y in got)
    used = [sum(in_use(found, call)) for call in range(len(alive))]
    assert used == alive.tolist() and max(used) == p.plan.items.bound
    assert len(svg) < 60_000


def test_rows_are_told_apart_and_memory_of_kernels_comes_and_goes() -> None:
    p, _ = prepared()
    found = places(p.graph, p.plan)
    rings = [place for place in found if place.kind == "ring"]
    assert len(rings) == len(p.plan.items.rows)
    for place in rings:
        (tensor,) = place.tensors
        assert {int(start) for start in place.pieces[:, 0]} == {*p.plan.row_offsets(tensor)}
        assert len(place.pieces) == place.rows
        assert max(in_use([place], c)[0] for c in range(len(p.plan.items.alive))) == place.bytes
    assert f"at most {rings[0].rows_held} held at a time" in memory_map_svg(p.graph, p.plan)


def test_places_cover_the_plan() -> None:
    p, _ = prepared()
    found = places(p.graph, p.plan)
    assert max(place.top for place in found) == p.plan.arena_bytes
    kinds = {place.kind for place in found}
    assert {"input", "output", "tensor", "ring"} <= kinds
    for place in found:
        if place.kind == "ring":
            assert 0 < place.rows_held < place.rows
    for view in segment_views(p.graph, p.plan):
        total = sum(place.bytes for place in view.places)
        assert view.alive_bytes <= min(total, p.plan.arena_bytes)


def test_the_front_leaves_out_what_is_beaten() -> None:
    assert [p.arena_bytes for p in undominated(FRONT)] == [8_000, 13_000]
    assert front_svg(FRONT).count("<circle") == 4  # three points and the ring of the chosen one
    assert "<b>" not in front_svg(FRONT)
    assert front_svg(FRONT[:1]).count("<circle") == 1


def test_numbers_for_people() -> None:
    assert [compact(v) for v in (950, 9_999, 12_345, 7_489_664)] == [
        "950", "9,999", "12.3 k", "7.49 M",
    ]  # fmt: skip
    assert ticks(0, 28_800) == [0, 10_000, 20_000]
    assert ticks(8_000, 14_000, 3) == [8_000, 10_000, 12_000, 14_000]
    assert short_name("a/b;c/d") == "a/b" and len(short_name("x" * 99)) == 40


def test_a_model_of_one_node(tmp_path: Path) -> None:
    b = Builder()
    x, y = b.tensor((1, 8)), b.tensor((1, 8), scale=1 / 256, zero=-128)
    b.operator("SOFTMAX", [x], y, Beta=1.0)
    path = tmp_path / "<i>.tflite"
    path.write_bytes(b.build([x], [y]))
    page = tmp_path / "one.html"
    subprocess.run(
        [sys.executable, "-m", "tinydeploy", "plan", path, "--report", page],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    assert "<i>.tflite" not in text and "&lt;i&gt;.tflite" in text
