"""Turn a firmware into esptool's command line: https://docs.espressif.com/projects/esptool."""

from __future__ import annotations

from tinydeploy.run.flash.base import BINARY, PORT, Commands, Job, Runner, complaint
from tinydeploy.run.flash.image import load_image
from tinydeploy.targets import Target

# Chips see their flash through windows of up to 16 MB that begin at multiples of that: "ESP32-C3
# Technical Reference Manual", 3.3.2.
_WINDOW = 0x0100_0000


def _needs(target: Target) -> str:
    return "" if target.flash.esptool else "the board has no chip of Espressif's"


def _commands(job: Job) -> Commands:
    """Write the binary where its first byte belongs; esptool reads its MD5 back and resets.

    The names of version 4 are understood by version 5, too, not the other way round.
    """
    choice = ["--port", job.probe] if job.probe else []
    address = load_image(job.elf)[0][0] % _WINDOW
    chip = ["--chip", job.target.flash.esptool, *choice]
    return ([job.program, *chip, "write_flash", f"0x{address:x}", BINARY],)


RUNNER = Runner(
    "esptool",
    lambda target: ("esptool", "esptool.py"),
    _needs,
    _commands,
    probe=PORT,
    probe_words="a serial port, such as /dev/ttyUSB0 or COM3",
    complaints=(
        complaint(
            r"permission denied|errno 13\b",
            "this user may not open the port: join the group that owns it (dialout), log in again; "
            "see docs/flashing.md, 'Permissions'",
        ),
        complaint(
            r"port is busy or doesn't exist[\s\S]*(no such file|filenotfound)|no serial ports|"
            r"could not find a port",
            "there is no such port: 'tinydeploy ports' lists them; name one with --probe",
        ),
        complaint(
            r"port is busy",
            "another program holds the port, or it does not exist: close serial monitors and see "
            "'tinydeploy ports'",
        ),
        complaint(
            r"no serial data received|wrong boot mode|invalid head of packet|failed to connect|"
            r"could not connect to an espressif",
            "the chip is not in its boot loader: hold BOOT while you press and release RESET, then "
            "try again",
        ),
        complaint(
            r"secure (boot|download)|flash encryption",
            "the chip is locked (secure boot or flash encryption): it takes signed images only",
        ),
    ),
)
