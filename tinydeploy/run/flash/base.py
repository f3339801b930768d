"""Turn a program that flashes boards into a value: its command lines and what they complain of."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.build.toolchain import Tool, find_tool
from tinydeploy.targets import Target

# All commands run in the folder of the firmware, so that no folder's name reaches a program that
# would read more into it than a name (Tcl, gdb's and OpenOCD's command languages).
ELF = "firmware.elf"
BINARY = "firmware.bin"

SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")
PORT = re.compile(r"/dev/[A-Za-z0-9._/-]{1,100}|COM[0-9]{1,3}|(?:socket|rfc2217)://[!-~]{1,200}")
SERVER = re.compile(r"[A-Za-z0-9.-]{0,100}:[0-9]{1,5}|\[[0-9a-fA-F:]{2,45}\]:[0-9]{1,5}")

_TROUBLE = re.compile(r"error|fail|fatal|unable|cannot|denied", re.IGNORECASE)
_SHOWN_LINES = 4

Commands = tuple[list[str], ...]


@dataclass(frozen=True, slots=True)
class Job:
    """Name the firmware file, its target, the program to flash it with and the probe wanted."""

    elf: Path
    target: Target
    program: str
    probe: str | None


@dataclass(frozen=True, slots=True)
class Complaint:
    """Pair what programs print when something is wrong with what to do about it."""

    pattern: re.Pattern[str]
    hint: str


def complaint(pattern: str, hint: str) -> Complaint:
    """Return the pair for a pattern that any part of the output may match, in any case."""
    return Complaint(re.compile(pattern, re.IGNORECASE), hint)


@dataclass(frozen=True, slots=True)
class Runner:
    """Describe a program that writes firmware to boards.

    `programs` are its names, any of which will do; `needs` returns why it cannot serve a target,
    or ''. `probe` is what --probe must look like, in words `probe_words`. `commands` returns the
    command lines, run one after the other without a shell, in the firmware's folder. Output that
    matches `failure` means failure whatever the exit code is; so does output without `proof`.
    `complaints` come before those that all programs share.
    """

    name: str
    programs: Callable[[Target], tuple[str, ...]]
    needs: Callable[[Target], str]
    commands: Callable[[Job], Commands]
    probe: re.Pattern[str] = SERIAL
    probe_words: str = "the probe's serial number"
    needs_probe: bool = False
    complaints: tuple[Complaint, ...] = ()
    failure: re.Pattern[str] | None = None
    proof: re.Pattern[str] | None = None

    def unsuitable(self, target: Target, probe: str | None) -> str:
        """Return why the runner cannot serve a target and probe, or ''."""
        if probe is None and self.needs_probe:
            return f"needs --probe: {self.probe_words}"
        if probe is not None and not self.probe.fullmatch(probe):
            return f"--probe {probe[:60]!r} is not {self.probe_words}"
        return self.needs(target)

    def tool(self, target: Target) -> Tool:
        """Return the first of the programs that is installed, else the first."""
        tools = [_find(name) for name in self.programs(target)]
        return next((tool for tool in tools if tool.path), tools[0])

    def failed(self, output: str) -> bool:
        """Tell whether the output shows a failure that the exit code may not."""
        return bool(
            (self.failure and self.failure.search(output))
            or (self.proof and not self.proof.search(output))
        )

    def explain(self, output: str) -> str:
        """Return what to do about a failure with this output."""
        known = self._known(output)
        return known[1].hint if known else "-v shows all that the program said"

    def gist(self, output: str) -> str:
        """Return the lines of the output that tell of the failure, at most a few."""
        known = self._known(output)
        middle = known[0].start() if known else 0
        lines = [x.strip()[:300] for x in output.splitlines() if x.strip()]
        telling = [x for x in lines if _TROUBLE.search(x)]
        if known:
            start, end = output.rfind("\n", 0, middle) + 1, output.find("\n", middle)
            telling.insert(0, output[start : end if end >= 0 else None].strip()[:300])
        chosen = list(dict.fromkeys(telling))[:_SHOWN_LINES] or lines[-_SHOWN_LINES:]
        shown = "\n".join(chosen) or "it said nothing"
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in shown)

    def _known(self, output: str) -> tuple[re.Match[str], Complaint] | None:
        for known in (*self.complaints, *COMPLAINTS):
            if match := known.pattern.search(output):
                return match, known
        return None


def _find(name: str) -> Tool:
    """Look a program up on the PATH, then beside this Python: extras are installed there."""
    tool = find_tool(name)
    return tool if tool.path else Tool(name, tool.install, _beside(name))


def _beside(name: str) -> Path | None:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    return Path(found) if found else None


# What the programs print, from their sources and from running them without a board; the order
# matters, the more telling first.
COMPLAINTS = (
    complaint(
        r"approtect|ap lock engaged|read(out)?[ -]protect|\brdp\b|core is locked|"
        r"device (is )?(locked|protected)|flash (is )?locked|lacked the permission to do so: "
        r"erase|missing permission: erase|allow-erase-all|mass.?erase.{0,30}unlock|"
        r"stm32.{0,8} device protected",
        "the chip is locked against debuggers (RDP, APPROTECT): unlocking erases all of it; "
        "see docs/flashing.md, 'A locked chip'",
    ),
    complaint(
        r"permission denied|access denied|libusb_error_access|insufficient permission|errno 13\b|"
        r"check your permissions|eperm\b|eacces\b|picotool was unable to connect",
        "this user may not open the device: install the udev rules, or join the group that owns "
        "the port (dialout, plugdev), and plug it in again; see docs/flashing.md, 'Permissions'",
    ),
    complaint(
        r"libusb_error_busy|resource busy|could not exclusively lock|already in use|"
        r"text file busy|is being used by another|address already in use|probe is in use",
        "another program holds the device: close serial monitors, debuggers and IDEs",
    ),
    complaint(
        r"wrong (--)?chip|unexpected idcode|unexpected chip|does not match.{0,20}chip|"
        r"chip id.{0,40}(mismatch|unexpected|expected)|not supported by (this )?device|"
        r"family id .{0,40}(not|cannot|mismatch)|expected 1 of 1: 0x|unknown device id",
        "another chip is connected than the target's: check --target, the board and --probe",
    ),
    complaint(
        r"target type \S+ not recognized|chip not found|unable to find chip|"
        r"no.{0,10}target.{0,10}(named|called)|can't find (board|target|interface)/",
        "this version of the program does not know the chip: update it, or see docs/flashing.md",
    ),
    complaint(
        r"target voltage|no target power|target.{0,20}not powered|vtref|vtarget",
        "the board seems to have no power: connect its own USB or supply, and the probe's VTref",
    ),
    complaint(
        r"verif\w*.{0,40}(fail|error|mismatch)|mismatch(ed)? (at|in|between)|mis-matched|"
        r"contents? differ|checksum mismatch|md5 of file does not match|does not match data in",
        "what was read back differs from what was written: try again, a shorter cable or a "
        "slower probe clock; if it stays, the flash may be worn or protected",
    ),
    complaint(
        r"connection refused|no route to host|name or service not known|could not connect|"
        r"connection timed out|remote communication error",
        "no gdb server answers there: start it first (openocd, pyocd gdbserver, JLinkGDBServer)",
    ),
    complaint(
        r"([1-9]\d*|multiple|several|more than one) (debug )?probes (were |are )?(found|connected)|"
        r"enter the number of the debug probe|requires a single rp",
        "several boards or probes are connected: name one with --probe; 'tinydeploy ports' shows "
        "serial numbers",
    ),
    complaint(
        r"no (available |connected |accessible )?(debug )?(probes?|rp\S*)\b.{0,30}"
        r"(found|connected|available|devices)|no connected (debug )?probes|no probe was found|"
        r"probe was not found|no target device available|unable to (find|open) .{0,40}(device|"
        r"cmsis-dap)|error: open failed|no (such )?device|libusb_error_no_device|"
        r"libusb_error_not_found|no such file or directory: '/dev|jlink.{0,30}not found",
        "no probe or board was found: is it plugged in, with a cable that carries data? "
        "'tinydeploy ports' lists what this computer sees",
    ),
    complaint(
        r"examination failed|no valid response|no ack|swd.{0,20}(fault|fail|error)|"
        r"cannot read idr|unable to connect to (the )?target|init mode failed",
        "the probe is there, but the chip does not answer: check the wires, power and reset; a "
        "chip that sleeps needs 'connect under reset'",
    ),
)
