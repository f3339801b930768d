"""Turn a device's error report into sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tinydeploy.run import protocol
from tinydeploy.run.protocol import ErrorReport

# Causes of a fault frame: firmware/arch/*/start.c.
_STACK_OVERFLOW = 1
_HARD_FAULT = 3
_RISCV_TRAP = 0x100
_HOST_SIGNAL = 0x200

# mcause, "The RISC-V Instruction Set Manual, Volume II", table 14.
_TRAPS = {
    0: "misaligned instruction address",
    1: "instruction access fault",
    2: "illegal instruction",
    3: "breakpoint",
    4: "misaligned load",
    5: "load access fault",
    6: "misaligned store",
    7: "store access fault",
    11: "environment call",
}


def describe_fault(
    report: ErrorReport, locate_address: Callable[[int], str] | None = None
) -> tuple[str, str, str]:
    """Return what, why and hint of an error that the device reports."""
    a, b, c = report.detail
    rebuild = "build the firmware again from the same model and plan"
    bug = "the device's program is wrong or its memory corrupt"
    if report.code == protocol.ERROR_FAULT:
        place = locate_address(b) if locate_address else ""
        at = f" in {place}" if place else ""
        return f"the device crashed{at}", f"{_cause(a)} at 0x{b:08x}, status 0x{c:08x}", bug
    if report.code == protocol.ERROR_BOUNDS:
        why = f"offset {a:,} and length {b:,} leave the limit of {c:,}"
        return "the device refuses what lies outside of its memory", why, ""
    if report.code == protocol.ERROR_ARENA:
        why = f"the model needs {a:,} bytes, the firmware was built with {b:,}"
        return "the firmware's arena is too small for its model", why, rebuild
    if report.code == protocol.ERROR_STEPS:
        why = f"the model has {a:,} steps, the firmware counters for {b:,}"
        return "the firmware has too few counters for its model", why, "raise max_steps"
    if report.code == protocol.ERROR_NOTHING:
        return "the device has no counters yet", "nothing was run since it started", ""
    if report.code == protocol.ERROR_STARVED:
        why = f"bytes {b:,} to {b + c:,} of input {a} did not arrive in time"
        return "the device gave up waiting for its input", why, "check cable and line rate"
    if report.code == protocol.ERROR_STREAMED:
        why = "this model takes its inputs while it runs; its memory has no place for them"
        return "the device refuses to have inputs written", why, "give them to each run"
    if report.code == protocol.ERROR_LENGTH:
        why = f"it expects {a:,} bytes and got {b:,}"
    elif report.code == protocol.ERROR_UNKNOWN:
        why = f"it does not know requests of kind {a}"
    else:
        why = f"error {report.code}: {a}, {b}, {c}"
    return "the device refuses the request", why, rebuild


def locate(elf: Path, address: int) -> str:
    """Return the function of an ELF file that holds an address, or ''."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        if isinstance(table, SymbolTableSection):
            for symbol in table.iter_symbols():
                start = symbol["st_value"] & ~1  # bit 0 marks Thumb code
                inside = start <= address < start + symbol["st_size"]
                if inside and symbol["st_info"]["type"] == "STT_FUNC":
                    return str(symbol.name)
    return ""


def _cause(cause: int) -> str:
    if cause == _STACK_OVERFLOW:
        return "stack overflow"
    if cause == _HARD_FAULT:
        return "hard fault"
    if cause >= _HOST_SIGNAL and cause < _HOST_SIGNAL + 0x100:
        return f"signal {cause - _HOST_SIGNAL}"
    if cause >= _RISCV_TRAP and cause < _HOST_SIGNAL:
        return _TRAPS.get(cause - _RISCV_TRAP, f"trap {cause - _RISCV_TRAP}")
    return f"unexpected exception 0x{cause:x}"
