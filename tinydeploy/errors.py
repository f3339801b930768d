"""Turn every expected failure into three plain lines and an exit code."""

from __future__ import annotations


class TinydeployError(Exception):
    """Report what failed, why (with figures) and what to try.

    Subclasses differ only in the exit code of the command line, which is part of the public
    interface: 2 usage, 3 unsupported or invalid model, 4 does not fit, 5 toolchain, 6 device,
    7 mismatch.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", hint: str = "", where: str = "") -> None:
        self.what = what
        self.why = why
        self.hint = hint
        self.where = where
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return "\n".join(line for line in (head, self.why, self.hint) if line)


class UsageError(TinydeployError):
    """Report a wrong option, data file or target file."""

    exit_code = 2


class ModelError(TinydeployError):
    """Report a model that is corrupt, invalid or uses something unsupported."""

    exit_code = 3


class FitError(TinydeployError):
    """Report a model that does not fit the target's memories."""

    exit_code = 4


class ToolchainError(TinydeployError):
    """Report a compiler, linker or emulator that is missing or failed."""

    exit_code = 5


class DeviceError(TinydeployError):
    """Report a device that is silent, speaks nonsense or runs another model."""

    exit_code = 6


class MismatchError(TinydeployError):
    """Report a device whose output differs from the integer reference."""

    exit_code = 7
