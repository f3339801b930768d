"""Board files against what others know of the parts: registers, fields, memories, clocks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from svd import Register, registers

from tinydeploy.targets import Step, Target, list_targets, load_target

WHOLE = 0xFFFF_FFFF
BOARDS = [target for target in list_targets() if target.hardware]

# The part's own register description or, where pyOCD has none, a near relative's; and the registers
# of the set-up that it does not have, or that lack a field there.
DESCRIPTIONS: dict[str, tuple[str, set[str]]] = {
    "arduino-nano-33-ble": ("nrf52840.svd", set()),
    "microbit": ("nrf51.svd", set()),
    "netduinoplus2": ("STM32F41x.svd", set()),
    "nrf52840-dk": ("nrf52840.svd", set()),
    "nucleo-f412zg": ("STM32F41x.svd", {"PWR.CR"}),
    "nucleo-f446re": ("STM32F429x.svd", set()),
    "stm32f746g-disco": ("STM32F429x.svd", {"FLASH.ACR", "PWR.CR1", "PWR.CSR1"}),
    "stm32vldiscovery": ("STM32F103xx.svd", set()),
}
NEAR_RELATIVES = {"nucleo-f446re", "stm32f746g-disco", "stm32vldiscovery"}
UARTS = {
    "arduino-nano-33-ble": "UART0.TASKS_STARTRX",
    "microbit": "UART0.TASKS_STARTRX",
    "nrf52840-dk": "UART0.TASKS_STARTRX",
    "nucleo-f412zg": "USART3.SR",
    "nucleo-f446re": "USART2.SR",
}


def fields_of(step: Step) -> dict[str, int]:
    return {name: int(value) for name, value in (f.split("=") for f in step.fields.split())}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_setup_and_uart_are_where_the_part_has_them(name: str) -> None:
    """Address, bits and value of each step are those of the register and fields that it names."""
    target = load_target(name)
    file, unknown = DESCRIPTIONS[name]
    known = registers(file)
    assert {s.register for s in target.setup} >= unknown
    for step in target.setup:
        if step.register not in unknown:
            assert step.at == known[step.register].address, step
            value, mask = packed(step, known[step.register])
            assert value == step.value, step
            assert step.mask in (mask, WHOLE), step
    assert target.uart.base == known[UARTS.get(name, "USART1.SR")].address


def packed(step: Step, register: Register) -> tuple[int, int]:
    """Return the value and the bits of the fields that a step names."""
    value = mask = 0
    for field, number in fields_of(step).items():
        bits = register.field_mask(field)
        first = (bits & -bits).bit_length() - 1
        assert number << first & ~bits == 0, f"{field}={number} is too large: {step}"
        value |= number << first
        mask |= bits
    return (value, mask) if step.fields else (step.value, step.mask)


# Of pyOCD's regions, what the board file leaves out (for another use) or has besides.
PARTS = {
    "arduino-nano-33-ble": ("nrf52840", {(0x0, 0x10000), (0x10001000, 0x400)}, set()),
    "microbit": ("nrf51", {(0x10001000, 0x100)}, set()),
    "nrf52840-dk": ("nrf52840", {(0x10001000, 0x400)}, set()),
    "nucleo-f412zg": ("stm32f412xg", set(), set()),
    "nucleo-h743zi": ("stm32h743xx", set(), {(0x24000000, 0x80000)}),
    "raspberry-pi-pico": ("rp2040", set(), set()),
}


@pytest.mark.parametrize("name", PARTS)
def test_memories_are_those_of_the_part(name: str) -> None:
    """Flash and RAM are, byte for byte, what pyOCD knows of the part; a Pico's flash is outside."""
    from pyocd.target import TARGET

    part, left_out, besides = PARTS[name]
    target = load_target(name)
    regions = [r for r in TARGET[part].MEMORY_MAP if r.type.name in ("FLASH", "RAM")]
    if part == "rp2040":  # whatever flash there is; aliases of the RAM, and the USB unit's
        flash = regions.pop(0)
        assert flash.start == target.memory("code").base
        assert flash.length >= target.memory("code").size
        regions = [r for r in regions if 0x20000000 <= r.start < 0x21000000]
    theirs = spans((r.start, r.length) for r in regions)
    kinds = ("ram",) if part == "rp2040" else ("ram", "flash")
    ours = {(m.base, m.size) for m in target.memories if m.kind in kinds}
    assert theirs | spans(besides) == spans(ours | left_out)


def spans(parts: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    """Join (first, bytes) that touch: banks are one memory for a linker."""
    joined: list[tuple[int, int]] = []
    for first, size in sorted(parts):
        if joined and sum(joined[-1]) == first:
            first, size = joined[-1][0], joined.pop()[1] + size
        joined.append((first, size))
    return set(joined)


def test_the_esp32_c3_is_as_its_own_tool_knows_it() -> None:
    from esptool.targets.esp32c3 import ESP32C3ROM as ROM

    target = load_target("esp32-c3-devkitm")
    steps = {step.register: step for step in target.setup}
    assert steps["RTC_CNTL.WDTWPROTECT"].at == ROM.RTC_CNTL_WDTWPROTECT_REG
    assert steps["RTC_CNTL.WDTWPROTECT"].value == ROM.RTC_CNTL_WDT_WKEY
    assert steps["RTC_CNTL.WDTCONFIG0"].at == ROM.RTC_CNTL_WDTCONFIG0_REG
    assert steps["RTC_CNTL.SWD_WPROTECT"].at == ROM.RTC_CNTL_SWD_WPROTECT_REG
    assert steps["RTC_CNTL.SWD_WPROTECT"].value == ROM.RTC_CNTL_SWD_WKEY
    assert steps["RTC_CNTL.SWD_CONF"].at == ROM.RTC_CNTL_SWD_CONF_REG
    assert steps["RTC_CNTL.SWD_CONF"].value == ROM.RTC_CNTL_SWD_AUTO_FEED_EN
    assert target.uart.base + 0x14 == ROM.UART_CLKDIV_REG
    code, constants = target.memory("code"), target.memory("constants")
    assert code.base == ROM.IROM_MAP_START and code.image == ROM.DROM_MAP_START
    assert constants.base == ROM.DROM_MAP_START + code.size  # the same bytes of flash only once
    ranges = {name: (first, last) for first, last, name in ROM.MEMORY_MAP}
    data = target.memory("data")
    assert ranges["DRAM"][0] == data.base and data.base + data.size <= ranges["DRAM"][1]


def last_fields(target: Target) -> dict[str, int]:
    """Return what the set-up leaves in each field."""
    return {
        f"{s.register}.{field}": value
        for s in target.setup
        if not s.wait
        for field, value in fields_of(s).items()
    }


def divided(code: int) -> int:
    """Return what an STM32's bus prescaler of three bits divides by."""
    return 2 ** (code - 3) if code >= 4 else 1


@pytest.mark.parametrize(
    "name", ["netduinoplus2", "nucleo-f446re", "nucleo-f412zg", "stm32f746g-disco"]
)
def test_clocks_of_stm32f4_and_f7(name: str) -> None:
    """RM0090, 7.3.2 and 3.5.1, and alike: limits of the PLL, buses, one wait state per 30 MHz."""
    target = load_target(name)
    f = last_fields(target)
    pll_input = 16e6 / f["RCC.PLLCFGR.PLLM"]
    vco = pll_input * f["RCC.PLLCFGR.PLLN"]
    assert 0.95e6 <= pll_input <= 2.1e6 and 100e6 <= vco <= 432e6
    core = vco / (2 * f["RCC.PLLCFGR.PLLP"] + 2)
    assert core == target.clock_hz == target.counter.hz
    assert f["FLASH.ACR.LATENCY"] == math.ceil(core / 30e6) - 1
    assert ("PWR.CR.ODEN" in f or "PWR.CR1.ODEN" in f) == (core > 168e6)
    slow, fast = core / divided(f["RCC.CFGR.PPRE1"]), core / divided(f["RCC.CFGR.PPRE2"])
    assert slow <= 54e6 and fast <= 108e6
    assert target.uart.clock_hz == (slow if target.uart.base < 0x40010000 else fast)


def test_clocks_of_the_others() -> None:
    """RM0433, 8.7; RM0456, 11.8; RM0041, 6.3; GD32VF103, 5.3; RP2040, 2.18.2; RP2350, 8.6.3."""
    h743, u575 = load_target("nucleo-h743zi"), load_target("nucleo-u575zi-q")
    f = last_fields(h743)
    vco = 64e6 / f["RCC.PLLCKSELR.DIVM1"] * (f["RCC.PLL1DIVR.DIVN1"] + 1)
    core = vco / (f["RCC.PLL1DIVR.DIVP1"] + 1)
    assert core == h743.clock_hz and 192e6 <= vco <= 836e6
    assert h743.uart.clock_hz == core / 2 / divided(f["RCC.D2CFGR.D2PPRE1"]) <= 100e6
    f = last_fields(u575)
    pll_input = 16e6 / (f["RCC.PLL1CFGR.PLL1M"] + 1)
    vco = pll_input * (f["RCC.PLL1DIVR.PLL1N"] + 1)
    assert 4e6 <= pll_input <= 8e6 and f["RCC.PLL1CFGR.PLL1RGE"] == 0 and 128e6 <= vco <= 544e6
    assert u575.clock_hz == u575.uart.clock_hz == round(vco) / (f["RCC.PLL1DIVR.PLL1R"] + 1)
    f100, nano = load_target("stm32vldiscovery"), load_target("longan-nano")
    assert f100.clock_hz == 4e6 * (last_fields(f100)["RCC.CFGR.PLLMUL"] + 2)
    f = last_fields(nano)
    assert nano.clock_hz == 4e6 * (f["RCU.CFG0.PLLMF_4"] * 16 + f["RCU.CFG0.PLLMF"] + 1)
    for name in ("raspberry-pi-pico", "pico2", "pico2-riscv"):
        target = load_target(name)
        f = last_fields(target)
        vco = 12e6 * f["PLL_SYS.FBDIV_INT.FBDIV_INT"]
        assert 750e6 <= vco <= 1600e6
        assert target.clock_hz == vco / f["PLL_SYS.PRIM.POSTDIV1"] / f["PLL_SYS.PRIM.POSTDIV2"]


def test_line_rates_are_close_enough() -> None:
    """Half a percent: a receiver bears about 2 % on both sides together (ST RM0090, 30.3.5)."""
    for target in BOARDS:
        clock = target.uart.clock_hz or target.clock_hz
        if target.uart.driver.startswith("stm32"):
            real = clock / round(clock / target.uart.baud)
        elif target.uart.driver == "pl011":
            real = clock / 16 / (round(clock * 4 / target.uart.baud) / 64)
        else:
            continue
        assert abs(real / target.uart.baud - 1) < 0.005, target.name


@pytest.mark.parametrize("target", BOARDS, ids=lambda target: target.name)
def test_boards_say_how_to_reach_them(target: Target) -> None:
    assert target.uart.pins and target.flash.order and target.flash.usb
    names = {"probe-rs": "probe_rs", "uf2": "uf2_family"}
    for runner in target.flash.order:
        assert getattr(target.flash, names.get(runner, runner)), runner
