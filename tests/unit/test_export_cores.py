"""Libraries with kernels for a core compile for it, run right on it, and say what they need."""

from pathlib import Path

import pytest
from hostlib import STRICT
from test_export import call, library, write_user

from tinydeploy.codegen.render import render
from tinydeploy.export.formats import FORMATS
from tinydeploy.export.machines import machine_for
from tinydeploy.targets import list_targets, load_target

ARM = ("arm-none-eabi-gcc", "-mthumb", "--specs=rdimon.specs", "-Wl,--section-start=.vectors=0")
RISCV = ("riscv64-unknown-elf-gcc",)
# Target: the flags of its core, of another that runs the same code, and of one that does not.
CORES = {
    "mps2-an385-armv6m": (ARM, "-mcpu=cortex-m0", "-mcpu=cortex-m23", None),
    "mps2-an385": (ARM, "-mcpu=cortex-m3", "-mcpu=cortex-m33", "-mcpu=cortex-m0"),
    "mps2-an386": (ARM, "-mcpu=cortex-m4", "-mcpu=cortex-m33", "-mcpu=cortex-m3"),
    "mps3-an547": (ARM, "-mcpu=cortex-m55 -mfloat-abi=hard",
                   "-march=armv8.1-m.main+mve -mfloat-abi=hard", "-mcpu=cortex-m33"),
    "riscv-virt": (RISCV, "-march=rv32imac -mabi=ilp32", "-march=rv32imc -mabi=ilp32",
                   "-march=rv32iac -mabi=ilp32"),
    "riscv-virt-rvv": (RISCV, "-march=rv32imac_zicsr -mabi=ilp32", "-march=rv32im -mabi=ilp32",
                       "-march=rv64imac -mabi=lp64"),
}  # fmt: skip
WARNINGS = [w for w in STRICT if w != "-Wpedantic"]  # inline assembly is GNU's
# The C library's own start needs a vector table, and Helium to be switched on (CPACR).
START = r"""
extern void _start(void);
static void reset(void)
{
    *(volatile unsigned *)0xE000ED88 |= 0xF00000u;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    _start();
}
__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {
    (const void *)0x00070000, (const void *)reset
};
"""


@pytest.mark.qemu
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=[pytest.mark.slow] if "385" in t else []) for t in CORES]
)
def test_the_example_runs_right_on_its_core(target: str, tmp_path: Path) -> None:
    found, (compiler, core, _, _) = library(tmp_path, target), CORES[target]
    assert not found.machine.portable
    FORMATS["cmake"](found).write(tmp_path)
    flags = ["-std=c99", *found.machine.flags, f"-I{tmp_path}/src", *core.split()]
    sources = sorted(tmp_path.glob("src/*.c"))
    test = tmp_path / "example" / "small_net_self_test.c"
    if compiler is RISCV:  # QEMU's machine has no C library here; deployments run the kernels
        call(*compiler, *flags, *WARNINGS, "-ffreestanding", "-c", *sources, test, cwd=tmp_path)
        return
    (tmp_path / "start.c").write_text(START)
    elf = tmp_path / "test.elf"
    call(*compiler, *flags, *WARNINGS, *sources, test, tmp_path / "example" / "main.c",
         tmp_path / "start.c", "-o", elf)  # fmt: skip
    qemu = load_target(target).qemu
    assert qemu
    said = call(qemu.binary, "-M", qemu.machine, "-display", "none", "-semihosting", "-kernel", elf)
    assert f"digest 0x{found.digest:08x}" in said and "bit-exact" in said


@pytest.mark.parametrize("target", CORES)
def test_a_build_for_another_core_says_what_is_needed(target: str, tmp_path: Path) -> None:
    compiler, core, later, other = CORES[target]
    machine = machine_for(load_target(target), {"net.c": b"__asm__"})
    source = tmp_path / "requirements.c"
    source.write_text(
        render("export/requirements.c.j2", name="net", target=target, machine=machine)
    )
    for flags in (core, later):
        call(*compiler, "-std=c99", *STRICT, *flags.split(), "-fsyntax-only", source)
    refused = [*compiler, *other.split()] if other else ["gcc"]
    said = call(*refused, "-fsyntax-only", source, code=1)
    assert f"net needs {machine.title}" in said


def test_every_target_has_cores() -> None:
    asm = {"net_kernels.h": b'__asm__("nop")'}
    for target in list_targets():
        if target.architecture != "host":
            machine = machine_for(target, asm)
            assert not machine.portable
            # What the firmware must be compiled with, the library must be, too.
            needed = {f for f in target.toolchain.flags if f.startswith("-fno")}
            assert needed <= set(machine.flags)
            assert machine_for(target, {"net.c": b"int x;"}).portable


def test_cmake_for_a_cortex_m(tmp_path: Path) -> None:
    net, user = tmp_path / "net", tmp_path / "user"
    FORMATS["cmake"](library(tmp_path, "mps2-an386")).write(net)
    write_user(user, f"add_subdirectory({net} small_net)", "library")
    cross = ("-DCMAKE_SYSTEM_NAME=Generic", "-DCMAKE_C_COMPILER=arm-none-eabi-gcc",
             "-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY",
             "-DCMAKE_C_FLAGS=-mthumb -mcpu=cortex-m4")  # fmt: skip
    call("cmake", "-S", user, "-B", user / "b", *cross)
    call("cmake", "--build", user / "b")
    assert (user / "b" / "small_net" / "libtinydeploy_small_net.a").is_file()
    assert not list((user / "b").rglob("*self_test*"))
