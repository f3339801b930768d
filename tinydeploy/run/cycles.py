"""Turn one emulated inference into an estimate of cycles, by classes of instructions.

The emulator counts how often each instruction of the model runs; each is weighed by a table. The
tables hold the cycles of the Cortex-M4 and Cortex-M3 Technical Reference Manuals (DDI 0439,
DDI 0337, "Instruction set summary") for code and data without wait states. Pipeline effects
beyond back-to-back loads are not modelled, and no hardware has confirmed the figures: they are
estimates.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinydeploy import resources
from tinydeploy.build.firmware import Firmware
from tinydeploy.build.size import section_range
from tinydeploy.build.toolchain import find_tool
from tinydeploy.errors import ToolchainError
from tinydeploy.run.device import Device, open_device
from tinydeploy.targets import Target

_SECONDS = 120.0
_CORES = ("cortex-m3", "cortex-m4")
_LINE = re.compile(r"^\s*([0-9a-f]+):\s+[0-9a-f]{4}(?: [0-9a-f]{4})?\s+(\S+)\s*([^;@]*)")


def can_estimate(target: Target) -> bool:
    """Tell whether there is a table for the target's core."""
    return target.qemu is not None and target.core in _CORES


def estimate(
    firmware: Firmware, target: Target, run: Callable[[Device], object]
) -> tuple[int, int]:
    """Return (instructions, estimated cycles) of what `run` executes of the model's code.

    Raises ToolchainError when the plugin cannot be built or the emulator does not take it.
    """
    start, end = section_range(firmware.elf, ".model_text")
    with tempfile.TemporaryDirectory(prefix="tinydeploy-") as temporary:
        plugin, out = Path(temporary) / "count.so", Path(temporary) / "counts"
        _compile(plugin)
        option = f"{plugin},start={start},end={end},out={out}"
        with open_device(firmware, target, emulator_options=("-plugin", option)) as device:
            run(device)
        if not out.is_file():
            raise ToolchainError(
                f"{target.qemu.binary if target.qemu else 'QEMU'} does not run plugins",
                "estimating cycles needs a QEMU built with TCG plugins",
            )
        counts = np.fromfile(out, np.uint64)
    cycles = _weights(firmware.elf, target.toolchain.prefix, target.core)
    total = sum(int(counts[(a - start) // 2]) * w for a, w in cycles.items() if start <= a < end)
    return int(counts.sum()), total


def _compile(plugin: Path) -> None:
    source = resources.folder("firmware") / "emulator" / "count.c"
    command = [
        str(find_tool("gcc").require()), "-std=c11", "-O2", "-shared", "-fPIC", str(source),
        "-o", str(plugin),
    ]  # fmt: skip
    _run(command)


def _run(command: list[str]) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=True,
            stdin=subprocess.DEVNULL, timeout=_SECONDS,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise ToolchainError(f"{command[0]} failed", error.stderr[:300]) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{command[0]} did not finish", str(error)) from error
    return result.stdout


def _weights(elf: Path, prefix: str, core: str) -> dict[int, int]:
    """Return the cycles of each instruction of the model, by address."""
    objdump = str(find_tool(f"{prefix}objdump").require())
    text = _run([objdump, "-d", "-j", ".model_text", str(elf)])
    found: dict[int, int] = {}
    previous = ""
    for line in text.splitlines():
        if match := _LINE.match(line):
            mnemonic = match[2].split(".")[0]
            found[int(match[1], 16)] = cycles_of(mnemonic, match[3], previous, core)
            previous = mnemonic
    return found


def cycles_of(mnemonic: str, operands: str, previous: str, core: str) -> int:
    """Return the cycles of one instruction; `previous` is the mnemonic before it."""
    if mnemonic.startswith(("ldm", "stm", "push", "pop", "vldm", "vstm")):
        return 1 + _registers(operands) + (2 if "pc" in operands else 0)
    if mnemonic in ("ldrd", "strd"):
        return 3
    if mnemonic.startswith("ldr"):
        return 1 if previous.startswith("ldr") and previous != "ldrd" else 2
    if mnemonic in ("cbz", "cbnz", "bl", "blx", "bx", "tbb", "tbh") or _is_branch(mnemonic):
        return 3
    if mnemonic in ("udiv", "sdiv"):
        return 12
    if core == "cortex-m3":
        if mnemonic in ("mla", "mls"):
            return 2
        if mnemonic.endswith(("mull", "mlal")):
            return 4
    return 1


def _is_branch(mnemonic: str) -> bool:
    """Tell `b` and its conditional forms from instructions that also begin with b."""
    conditions = "eq ne cs hs cc lo mi pl vs vc hi ls ge lt gt le al"
    return mnemonic == "b" or (mnemonic[:1] == "b" and mnemonic[1:] in conditions.split())


def _registers(operands: str) -> int:
    """Count the registers of a list such as {r0, r4-r7, lr}."""
    inside = operands[operands.find("{") + 1 : operands.find("}")]
    count = 0
    for part in filter(None, (p.strip() for p in inside.split(","))):
        first, _, last = part.partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last[1:].isdigit() else 1
    return count
