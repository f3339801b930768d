"""Turn the arrays that kernels read into constant C arrays, each content once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

_C_TYPES = {
    f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


@dataclass(slots=True)
class Constants:
    """Collect constant arrays under names that begin with `prefix`.

    reads: how often the bytes of each are read in one inference; `pixels` counts those reads for
    the arrays that are named next.
    """

    prefix: str
    by_content: dict[tuple[str, bytes], str] = field(default_factory=dict)
    arrays: list[dict[str, Any]] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)
    pixels: float = 0.0

    def name(self, array: NDArray[Any], suggestion: str) -> str:
        """Return the C name of an array: that of an equal one if there is one already."""
        key = (array.dtype.name, array.tobytes())
        if key not in self.by_content:
            symbol = f"{self.prefix}_{suggestion}"
            self.by_content[key] = symbol
            self.arrays.append(
                {"symbol": symbol, "type": _C_TYPES[array.dtype.name], "array": array}
            )
        symbol = self.by_content[key]
        self.reads[symbol] = self.reads.get(symbol, 0.0) + self.pixels
        return symbol

    def slowest(self, room: int) -> set[str]:
        """Return the constants to put elsewhere so that the others take at most `room` bytes.

        Those that are read least often per byte, as few as will do.
        """
        order = sorted(self.arrays, key=lambda a: (self.reads[a["symbol"]], -a["array"].nbytes))
        excess = sum(a["array"].nbytes for a in order) - room
        moved: dict[str, int] = {}
        for a in order:
            if excess > 0:
                moved[a["symbol"]] = a["array"].nbytes
                excess -= a["array"].nbytes
        for symbol, size in reversed(list(moved.items())):
            if excess + size <= 0:  # it can stay, after all
                excess += size
                del moved[symbol]
        return {*moved}
