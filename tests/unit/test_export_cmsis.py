"""A CMSIS-Pack holds what its schema asks for, and formats refuse cores they cannot name."""

import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from commands import tinydeploy
from hostlib import STRICT
from networks import residual_network
from test_export import call, library

from tinydeploy.errors import UsageError
from tinydeploy.export.formats import FORMATS
from tinydeploy.export.library import Library, Publisher
from tinydeploy.export.machines import machine_for
from tinydeploy.targets import load_target

# Of PACK.xsd 1.7.32 (Open-CMSIS-Pack), what this uses: children and attributes with their patterns;
# those that end in "!" are required.
RESTRICTED = r"[-_A-Za-z0-9]+"
VERSION = r"\d+\.\d+\.\d+"
PART = r"[A-Za-z0-9][A-Za-z0-9_+()'/\-\s.]{1,31}"
SUB = r"[A-Za-z0-9][A-Za-z0-9_+():/\- .]{0,31}"
CORES = r"Cortex-M(0|0\+|1|3|4|7|23|33|35P|52|55|85)"
TEXT = r"[ -~]+"
SCHEMA: dict[str, tuple[dict[str, str], set[str]]] = {
    "package": (
        {"schemaVersion!": r"\d+\.\d+(\.\d+)?",
         "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation": "PACK.xsd"},
        {"name!", "vendor!", "description!", "url!", "license", "requirements", "releases!",
         "keywords", "taxonomy", "conditions", "components"},
    ),
    "requirements": ({}, {"languages"}),
    "languages": ({}, {"language!"}),
    "language": ({"name!": "C", "version!": "99"}, set()),
    "releases": ({}, {"release!"}),
    "release": ({"version!": VERSION}, set()),
    "keywords": ({}, {"keyword!"}),
    "taxonomy": ({}, {"description!"}),
    "conditions": ({}, {"condition!"}),
    "condition": ({"id!": TEXT}, {"description", "accept", "require", "deny"}),
    "accept": ({"Dcore": CORES, "Ddsp": "DSP|NO_DSP", "Dmve": "NO_MVE|MVE|FP_MVE"}, set()),
    "components": ({}, {"component!"}),
    "component": (
        {"Cclass!": PART, "Cgroup!": PART, "Csub": SUB, "Cversion!": VERSION, "condition": TEXT},
        {"description!", "RTE_Components_h", "files!"},
    ),
    "files": ({}, {"file!"}),
    "file": (
        {"category!": "doc|header|source", "name!": r"[\w./-]+", "attr": "template",
         "select": TEXT},
        set(),
    ),
    "description": ({"Cclass": PART, "Cgroup": PART}, set()),
    "name": ({}, set()), "vendor": ({}, set()), "url": ({}, set()), "license": ({}, set()),
    "keyword": ({}, set()), "RTE_Components_h": ({}, set()),
}  # fmt: skip


@pytest.fixture(scope="module")
def cortex_m4(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return library(tmp_path_factory.mktemp("m4"), "mps2-an386")


def check(element: ET.Element) -> None:
    """Compare an element and those in it with the schema's facts."""
    attributes, children = SCHEMA[element.tag]
    known = {name.rstrip("!"): pattern for name, pattern in attributes.items()}
    for name, value in element.attrib.items():
        assert re.fullmatch(known[name], value), (element.tag, name, value)
    given = {child.tag for child in element}
    assert given <= {name.rstrip("!") for name in children}, element.tag
    wanted = {n[:-1] for n in (*attributes, *children) if n.endswith("!")}
    assert wanted <= given | set(element.attrib), element.tag
    if not children:
        assert not len(element)
    for child in element:
        check(child)


def described(tree: Mapping[str, bytes]) -> ET.Element:
    """Return the package that a pack describes, checked."""
    (path,) = (p for p in tree if p.endswith(".pdsc"))
    assert "/" not in path
    package = ET.fromstring(tree[path])
    assert package.tag == "package"
    check(package)
    name, vendor = package.findtext("name"), package.findtext("vendor")
    assert re.fullmatch(RESTRICTED, name or "") and re.fullmatch(RESTRICTED, vendor or "")
    assert path == f"{vendor}.{name}.pdsc"
    assert package.findtext("license") in tree
    conditions = {c.get("id") for c in package.iter("condition")}
    for component in package.iter("component"):
        assert component.get("condition") in conditions | {None}
    for file in package.iter("file"):
        assert file.get("name") in tree
        assert (file.get("attr") == "template") == ("select" in file.attrib)
    return package


def test_the_pack_follows_the_schema(cortex_m4: Library, tmp_path: Path) -> None:
    tree = FORMATS["cmsis-pack"](cortex_m4)
    package = described(tree)
    accepted = {tuple(a.attrib.items()) for a in package.iter("accept")}
    assert (("Dcore", "Cortex-M4"),) in accepted and (("Dcore", "Cortex-M0"),) not in accepted
    # What a project with the component compiles, for a core that the condition accepts.
    for path, text in tree.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text)
    sources = [tmp_path / str(f.get("name")) for f in package.iter("file")
               if f.get("category") == "source" and "main" not in str(f.get("name"))]  # fmt: skip
    assert {s.parent.name for s in sources} == {"src", "example"}
    warnings = [w for w in STRICT if w != "-Wpedantic"]
    call(
        "arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-std=c99", "-O2", *warnings,
        f"-I{tmp_path}/src", "-c", *sources, cwd=tmp_path,
    )  # fmt: skip


def test_packs_are_named_and_laid_out_as_indexes_want(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(residual_network())
    out = tmp_path / "A-Person.net.1.2.3.pack"
    tinydeploy("export", tmp_path / "net.tflite", "-f", "cmsis-pack", "-o", out,
               "--author", "A. Person", "--release", "1.2.3")  # fmt: skip
    with zipfile.ZipFile(out) as archive:
        tree = {name: archive.read(name) for name in archive.namelist()}
    package = described(tree)
    assert "A-Person.net.pdsc" in tree and not package.findall("conditions")
    assert out.name in tree["README.md"].decode()


def test_long_names_and_authors_are_cut_to_what_packs_hold(cortex_m4: Library) -> None:
    long = replace(
        cortex_m4, name="n" * 40, publisher=Publisher("an author " * 6 + ".", version="9.0.0")
    )
    described({**dict.fromkeys((f"src/{p}" for p in long.sources), b""),
               **renamed(FORMATS["cmsis-pack"](long))})  # fmt: skip


def renamed(tree: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files under the names of the long library, which its sources do not have."""
    return {p.replace("small_net", "n" * 40): t for p, t in tree.items()}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("cmsis-pack", "riscv-virt"),
        ("espidf", "mps2-an386"),
        ("arduino", "mps3-an547"),
        ("platformio", "mps3-an547"),
    ],
)
def test_cores_that_a_system_has_no_word_for_are_refused(
    kind: str, target: str, cortex_m4: Library
) -> None:
    machine = machine_for(load_target(target), {"net.c": b"__asm__"})
    with pytest.raises(UsageError, match="export the model with --target host"):
        FORMATS[kind](replace(cortex_m4, machine=machine))
