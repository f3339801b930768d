"""What is exported is what Arduino, PlatformIO, Zephyr and ESP-IDF ask for."""

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import kconfiglib
import pytest
import yaml
from hostlib import STRICT
from test_export import call, library

from tinydeploy.export.arduino import title
from tinydeploy.export.formats import FORMATS
from tinydeploy.export.library import Library

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return library(tmp_path_factory.mktemp("portable"))


@pytest.fixture(scope="module")
def cortex_m4(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return library(tmp_path_factory.mktemp("m4"), "mps2-an386")


@pytest.fixture(scope="module")
def riscv(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return library(tmp_path_factory.mktemp("rv"), "riscv-virt")


def written(tree: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files of an export below a folder."""
    for path, text in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)
    return folder


# Arduino: the rules of "Arduino library specification" and of arduino-lint's schema.

NAME = re.compile(r"(?![aA]rduino)[A-Za-z0-9][A-Za-z0-9 _.-]{0,62}")
CATEGORIES = {"Display", "Communication", "Signal Input/Output", "Sensors", "Device Control",
              "Timing", "Data Storage", "Data Processing", "Other"}  # fmt: skip


def properties(tree: Mapping[str, bytes]) -> dict[str, str]:
    lines = tree["library.properties"].decode().splitlines()
    assert all(re.fullmatch(r"[a-z_]+=[ -~]+", line) for line in lines)
    pairs = dict(line.split("=", 1) for line in lines)
    assert len(pairs) == len(lines)
    return pairs


def test_arduino_library_follows_the_specification(portable: Library, cortex_m4: Library) -> None:
    for found in (portable, cortex_m4):
        tree = FORMATS["arduino"](found)
        given = properties(tree)
        required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category",
                    "url", "architectures"}  # fmt: skip
        assert required <= set(given) <= required | {"includes", "license"}
        assert NAME.fullmatch(given["name"]) and re.search("[A-Za-z]", given["name"])
        assert re.fullmatch(r"\d+\.\d+\.\d+", given["version"])
        assert given["category"] in CATEGORIES
        assert given["includes"] == "small_net.h" and "src/small_net.h" in tree
        # Recursive layout: all sources below src/, a sketch in a folder of its own name, no
        # files that an IDE would take for a library of 1.0 (utility/) or for a git repository.
        tops = {path.partition("/")[0] for path in tree}
        assert tops == {"src", "examples", "library.properties", "keywords.txt", "README.md",
                        "LICENSE", "tinydeploy-export.json"}  # fmt: skip
        sketches = [p for p in tree if p.endswith(".ino")]
        assert sketches == ["examples/SelfTest/SelfTest.ino"]
        for line in tree["keywords.txt"].decode().splitlines():
            assert line.startswith("#") or re.fullmatch(r"\w+\t(KEYWORD[12]|LITERAL1)", line)
    assert properties(FORMATS["arduino"](portable))["architectures"] == "*"
    assert "stm32" in properties(FORMATS["arduino"](cortex_m4))["architectures"].split(",")


def test_only_arduino_may_call_its_libraries_arduino() -> None:
    assert not NAME.fullmatch("arduino_net")
    assert NAME.fullmatch(title("arduino_net")) and title("net") == "net"


ARDUINO_H = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#define HEX 16
struct Port {
  operator bool() const { return true; }
  void begin(unsigned long) {}
  void print(const char *text) { fputs(text, stdout); }
  void print(unsigned long value, int = 10) { printf("%lx", value); }
  void println(const char *text) { puts(text); }
};
extern Port Serial;
static inline uint32_t micros() { return 0; }
static inline void delay(uint32_t) { exit(0); }
void setup();
void loop();
"""


def run_sketch(sketch: Path, sources: Path, folder: Path) -> str:
    """Compile a sketch as Arduino does, C as C and the sketch as C++, and run it here."""
    (folder / "Arduino.h").write_text(ARDUINO_H)
    (folder / "start.cpp").write_text(
        '#include "Arduino.h"\nPort Serial;\nint main() { setup(); for (;;) loop(); }\n'
    )
    call(
        "gcc", "-std=gnu11", "-Os", *STRICT, f"-I{sources}", "-c", *sources.glob("*.c"),
        *sketch.parent.glob("*.c"), cwd=folder,
    )  # fmt: skip
    call(
        "g++", "-std=gnu++11", "-Wall", "-Wextra", "-Werror", f"-I{sources}", f"-I{folder}",
        f"-I{sketch.parent}", "-x", "c++", sketch, folder / "start.cpp",
        "-x", "none", *folder.glob("*.o"), "-o", folder / "sketch",
    )  # fmt: skip
    return call(folder / "sketch")


def test_the_sketch_runs(portable: Library, tmp_path: Path) -> None:
    net, work = written(FORMATS["arduino"](portable), tmp_path / "net"), tmp_path / "work"
    work.mkdir()
    said = run_sketch(net / "examples" / "SelfTest" / "SelfTest.ino", net / "src", work)
    assert f"small_net: digest 0x{portable.digest:x}, bit-exact" in said


# PlatformIO: its own packer and manifest schema. The schema compares the licence with a list that
# it downloads; the test gives it that list, so that nothing depends on the network.

PIO = """
import sys
from platformio.package.manifest.schema import ManifestSchema
known = {"licenses": [{"licenseId": "Apache-2.0"}]}
ManifestSchema.load_spdx_licenses = staticmethod(lambda: known)
from platformio.__main__ import main
sys.exit(main())
"""


def test_platformio_packs_the_library(portable: Library, tmp_path: Path) -> None:
    net, archive = written(FORMATS["platformio"](portable), tmp_path / "net"), tmp_path / "x.tar.gz"
    environment = {
        **os.environ,
        "PLATFORMIO_CORE_DIR": str(tmp_path / "core"),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
    }
    result = subprocess.run(
        [sys.executable, "-c", PIO, "pkg", "pack", net, "-o", archive],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "packed", filter="data")
    packed = tmp_path / "packed"
    manifest = json.loads((packed / "library.json").read_text())
    assert manifest["license"] == "Apache-2.0" and manifest["platforms"] == ["*"]
    (example,) = manifest["examples"]
    assert all((packed / example["base"] / name).is_file() for name in example["files"])
    assert {p.name: p.read_bytes() for p in (packed / "src").iterdir()} == dict(portable.sources)
    sketch = (packed / "examples" / "self_test" / "self_test.ino").read_bytes()
    assert sketch == FORMATS["arduino"](portable)["examples/SelfTest/SelfTest.ino"]


def test_platformio_names_platforms_that_have_the_core(cortex_m4: Library, riscv: Library) -> None:
    for found, platform in ((cortex_m4, "ststm32"), (riscv, "espressif32")):
        manifest = json.loads(FORMATS["platformio"](found)["library.json"])
        assert platform in manifest["platforms"] and "native" not in manifest["platforms"]


# Zephyr: the module's description, Kconfig and CMake as Zephyr reads them. Zephyr itself is in no
# package registry; the functions that the CMake files call are stood in for by plain CMake.

ZEPHYR_CMAKE = """
cmake_minimum_required(VERSION 3.20)
set(CONFIG_TINYDEPLOY_SMALL_NET y)
macro(zephyr_library_named name)
  set(current ${name})
  add_library(${name} STATIC)
  target_link_libraries(app PRIVATE ${name})
endmacro()
macro(zephyr_library_sources)
  target_sources(${current} PRIVATE ${ARGN})
endmacro()
macro(zephyr_library_compile_options)
  target_compile_options(${current} PRIVATE ${ARGN})
endmacro()
macro(zephyr_include_directories)
  target_include_directories(app PRIVATE ${ARGN})
  target_include_directories(${current} PRIVATE ${ARGN})
endmacro()
file(WRITE ${CMAKE_BINARY_DIR}/empty.c "typedef int empty;")
macro(zephyr_modules)
  add_executable(app ${CMAKE_BINARY_DIR}/empty.c)
  target_include_directories(app PRIVATE ${Zephyr_DIR})
  foreach(module ${ZEPHYR_EXTRA_MODULES})
    add_subdirectory(${module}/zephyr ${CMAKE_BINARY_DIR}/module)
  endforeach()
endmacro()
enable_language(C)
zephyr_modules()
"""


def test_zephyr_takes_the_module(portable: Library, tmp_path: Path) -> None:
    net = written(FORMATS["zephyr"](portable), tmp_path / "small_net")
    module = yaml.safe_load((net / "zephyr" / "module.yml").read_text())
    assert module == {
        "name": "small_net",
        "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"},
        "samples": ["samples"],
    }
    assert (net / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (net / module["build"]["kconfig"]).is_file()
    sample = net / "samples" / "self_test"
    tests = yaml.safe_load((sample / "sample.yaml").read_text())
    assert set(tests) == {"sample", "tests"}

    zephyr = tmp_path / "zephyr"
    (zephyr / "zephyr" / "sys").mkdir(parents=True)
    (zephyr / "zephyr" / "sys" / "printk.h").write_text(
        "#include <stdio.h>\n#define printk printf\n"
    )
    (zephyr / "ZephyrConfig.cmake").write_text(ZEPHYR_CMAKE)
    call("cmake", "-S", sample, "-B", tmp_path / "b", f"-DZephyr_DIR={zephyr}",
         f"-DCMAKE_C_FLAGS={' '.join(STRICT)}")  # fmt: skip
    call("cmake", "--build", tmp_path / "b")
    said = call(tmp_path / "b" / "app")
    (run,) = tests["tests"].values()
    (pattern,) = run["harness_config"]["regex"]
    assert re.search(pattern, said)


def chosen(
    tree: Mapping[str, bytes], folder: Path, cores: str, conf: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return what Kconfig makes of the module's symbol on a machine with some cores."""
    written(tree, folder)
    symbols = "".join(f"config {c}\n\tbool\n\tdefault y\n" for c in cores.split())
    (folder / "Top").write_text(f'{symbols}source "zephyr/Kconfig"\n')
    (folder / "conf").write_text(conf)
    monkeypatch.setenv("srctree", str(folder))
    kconfig = kconfiglib.Kconfig("Top", warn_to_stderr=False)
    kconfig.load_config(str(folder / "conf"))
    return str(kconfig.syms["TINYDEPLOY_SMALL_NET"].str_value)


def test_kconfig_offers_the_network_where_its_kernels_run(
    portable: Library, cortex_m4: Library, riscv: Library, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for number, (found, cores, expected) in enumerate(
        (
            (portable, "X86", "y"),
            (cortex_m4, "CPU_CORTEX_M CPU_CORTEX_M4", "y"),
            (cortex_m4, "CPU_CORTEX_M CPU_CORTEX_M33 ARMV8_M_DSP", "y"),
            (cortex_m4, "CPU_CORTEX_M CPU_CORTEX_M0", "n"),
            (riscv, "RISCV_ISA_RV32I RISCV_ISA_EXT_M", "y"),
            (riscv, "RISCV_ISA_RV32I", "n"),
        )
    ):
        tree = FORMATS["zephyr"](found)
        conf = tree["samples/self_test/prj.conf"].decode()
        found_value = chosen(tree, tmp_path / str(number), cores, conf, monkeypatch)
        assert found_value == expected, (cores, expected)


# ESP-IDF: the component manager's own packer; CMake with stand-ins for ESP-IDF's functions.

IDF_CMAKE = """
macro(idf_component_register)
  cmake_parse_arguments(c "" "" "SRCS;INCLUDE_DIRS" ${ARGN})
  get_filename_component(COMPONENT_LIB ${CMAKE_CURRENT_LIST_DIR} NAME)
  add_library(${COMPONENT_LIB} STATIC ${c_SRCS})
  target_include_directories(${COMPONENT_LIB} PUBLIC ${c_INCLUDE_DIRS})
endmacro()
macro(project name)
  _project(${name} C)
  add_subdirectory(${CMAKE_SOURCE_DIR}/../.. component)
  add_subdirectory(main)
  target_link_libraries(main PUBLIC small_net)
  file(WRITE ${CMAKE_BINARY_DIR}/start.c
    "void app_main(void);\\nint main(void) { app_main(); return 0; }\\n")
  add_executable(firmware ${CMAKE_BINARY_DIR}/start.c)
  target_link_libraries(firmware PRIVATE main)
endmacro()
"""


def test_espidf_packs_and_builds_the_component(
    portable: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = written(FORMATS["espidf"](portable), tmp_path / "small_net")
    call(BIN / "compote", "component", "pack", "--project-dir", net, "--name", "small_net",
         "--dest-dir", tmp_path / "dist")  # fmt: skip
    with tarfile.open(tmp_path / "dist" / "small_net_0.1.0.tgz") as tar:
        packed = {name.removeprefix("./") for name in tar.getnames()}
    assert {"idf_component.yml", "CMakeLists.txt", "LICENSE", "src/small_net.c"} <= packed
    manifest = yaml.safe_load((net / "idf_component.yml").read_text())
    assert manifest["license"] == "Apache-2.0" and "targets" not in manifest
    example = net / "examples" / "self_test"
    override = yaml.safe_load((example / "main" / "idf_component.yml").read_text())
    path = override["dependencies"]["small_net"]["override_path"]
    assert (example / "main" / path).resolve() == net.resolve()

    tools = tmp_path / "idf" / "tools" / "cmake"
    tools.mkdir(parents=True)
    (tools / "project.cmake").write_text(IDF_CMAKE)
    monkeypatch.setenv("IDF_PATH", str(tmp_path / "idf"))
    call("cmake", "-S", example, "-B", tmp_path / "b", f"-DCMAKE_C_FLAGS={' '.join(STRICT)}")
    call("cmake", "--build", tmp_path / "b")
    assert "bit-exact" in call(tmp_path / "b" / "firmware")


def test_espidf_names_chips_that_have_the_core(riscv: Library) -> None:
    manifest = yaml.safe_load(FORMATS["espidf"](riscv)["idf_component.yml"])
    assert "esp32c3" in manifest["targets"] and "esp32" not in manifest["targets"]
