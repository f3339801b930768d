"""Turn the kernels that a network uses into what each build system calls the cores they run on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy.targets import Target

# Inline assembly and intrinsics: the generated C says by itself whether it is portable.
_NOT_PORTABLE = re.compile(rb"\b(__)?asm(__)?\b|#include <(arm|riscv)_\w+\.h>")


@dataclass(frozen=True, slots=True)
class Machine:
    """Name the cores that can run a library, in the words of each build system.

    `condition` is what the C preprocessor must find true. `arduino` and `platformio` are
    architectures and platforms, of which some boards have such a core; `zephyr` is a Kconfig
    expression; `espidf` lists chips; `cmsis` holds attributes of processors, one of which must
    match. What is empty has no such cores, except where `portable` says that all will do. `flags`
    are those that the compiler needs for the network, whatever the rest of a program is built with.
    """

    title: str
    condition: str
    portable: bool = False
    arduino: tuple[str, ...] = ()
    platformio: tuple[str, ...] = ()
    zephyr: str = ""
    espidf: tuple[str, ...] = ()
    cmsis: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ("-O2",)


PORTABLE = Machine(
    "any core, in C99",
    "defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L",
    portable=True,
    arduino=("*",),
    platformio=("*",),
)

# Preprocessor names: Arm C Language Extensions (IHI 0053); RISC-V C API specification.
# Kconfig names: Zephyr, arch/arm/core/cortex_m/Kconfig and arch/riscv/Kconfig.isa.
# Dcore, Ddsp, Dmve: CMSIS-Pack, PACK.xsd 1.7. Chips of ESP-IDF: those with a RISC-V core.
_THUMB = "defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'"
_DSP_CORES = ("mbed_nano", "mbed_nicla", "mbed_portenta", "nrf52", "renesas_uno", "stm32")
_DSP_PLATFORMS = (
    "atmelsam", "freescalekinetis", "infineonxmc", "maxim32", "nordicnrf52", "nxpimxrt",
    "nxplpc", "renesas-ra", "siliconlabsefm32", "ststm32", "teensy", "titiva",
)  # fmt: skip
_BASELINE = ("Cortex-M0", "Cortex-M0+", "Cortex-M1", "Cortex-M23")
_MAINLINE = ("Cortex-M3", "Cortex-M4", "Cortex-M7", "Cortex-M33", "Cortex-M35P", "Cortex-M52",
             "Cortex-M55", "Cortex-M85")  # fmt: skip

_CORTEX_M = {
    "armv6-m": Machine(
        "Arm Cortex-M0 and later",
        _THUMB,
        arduino=("mbed_rp2040", "nrf5", "rp2040", "sam", "samd", *_DSP_CORES),
        platformio=("nordicnrf51", "raspberrypi", *_DSP_PLATFORMS),
        zephyr="CPU_CORTEX_M",
        cmsis=tuple(("Dcore", core) for core in (*_BASELINE, *_MAINLINE)),
    ),
    "armv7-m": Machine(
        "Arm Cortex-M3 and later, but Cortex-M23",
        f"{_THUMB} && __ARM_ARCH_ISA_THUMB == 2",
        arduino=("sam", *_DSP_CORES),
        platformio=_DSP_PLATFORMS,
        zephyr="ARMV7_M_ARMV8_M_MAINLINE",
        cmsis=tuple(("Dcore", core) for core in _MAINLINE),
    ),
    "dsp": Machine(
        "Arm Cortex-M4 and M7, and later ones with the DSP extension",
        f"{_THUMB} && defined(__ARM_FEATURE_DSP)",
        arduino=_DSP_CORES,
        platformio=_DSP_PLATFORMS,
        zephyr="CPU_CORTEX_M4 || CPU_CORTEX_M7 || ARMV8_M_DSP",
        cmsis=(("Dcore", "Cortex-M4"), ("Dcore", "Cortex-M7"), ("Ddsp", "DSP")),
    ),
    "mve": Machine(
        "Arm Cortex-M52, M55 and M85 with Helium (MVE)",
        f"{_THUMB} && defined(__ARM_FEATURE_MVE)",
        zephyr="ARMV8_1_M_MVEI",
        cmsis=(("Dmve", "MVE"), ("Dmve", "FP_MVE")),
        # GCC 12.2 miscompiles some plain loops that it vectorises for Helium by itself.
        flags=("-O2", "-fno-tree-vectorize"),
    ),
}


def machine_for(target: Target, sources: Mapping[str, bytes]) -> Machine:
    """Return which cores can run sources that were generated for a target."""
    if not any(_NOT_PORTABLE.search(text) for text in sources.values()):
        return PORTABLE
    if target.architecture == "cortex-m":
        for feature in ("mve", "dsp"):
            if feature in target.features:
                return _CORTEX_M[feature]
        return _CORTEX_M["armv6-m" if target.isa == "armv6-m" else "armv7-m"]
    return _riscv(target)


def _riscv(target: Target) -> Machine:
    """Return the RISC-V cores with the extensions of a target.

    The vector and bit instructions are switched on within the assembly, so that no flag of the
    compiler tells whether the core has them; where a build system knows no word for an extension,
    the title alone does.
    """
    bits = [f for f in ("zba", "zbb") if f in target.features]
    vector = target.isa.endswith("rvv")
    extensions = ["M", *(b.capitalize() for b in bits), *(["V"] if vector else [])]
    plain = len(extensions) == 1
    return Machine(
        f"RISC-V RV32I with {', '.join(extensions)}",
        "defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul)",
        arduino=("ch32v", "esp32") if plain else ("esp32",) if not vector else (),
        platformio=("espressif32", "gd32v", "sifive") if plain else
        ("espressif32",) if not vector else (),
        zephyr=" && ".join(
            ["RISCV_ISA_RV32I", *(f"RISCV_ISA_EXT_{e.upper()}" for e in extensions if e != "V")]
        ),
        espidf=("esp32c2", "esp32c3", "esp32c5", "esp32c6", "esp32h2", "esp32p4") if plain else (),
    )  # fmt: skip
