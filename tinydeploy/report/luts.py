"""Turn a request for a table into the table, its errors, and files of it.

python -m tinydeploy.report.luts docs/tables.md brings the figures of that page up to date.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinydeploy.codegen.lut import c_source, intel_hex, words
from tinydeploy.errors import UsageError
from tinydeploy.numerics.lut import genetic, integer, piecewise
from tinydeploy.numerics.lut.functions import FUNCTIONS, Floats, Function
from tinydeploy.numerics.lut.piecewise import Piecewise, Samples, grid
from tinydeploy.report.lut import lut_svg
from tinydeploy.report.tables import markdown

# Errors are measured on this grid (GQA-LUT, 2024); breakpoints lie on it, too.
STEP = 0.01
_MOST_POINTS = 20_000


@dataclass(frozen=True, slots=True)
class Request:
    """Say which table is wanted."""

    function: Function
    entries: int
    bits: int
    seed: int
    generations: int

    @classmethod
    def checked(
        cls, name: str, entries: int, bounds: tuple[float, float] | None, bits: int, seed: int,
        generations: int,
    ) -> Request:  # fmt: skip
        """Return a request; raises UsageError for an unknown function or a useless range."""
        function = FUNCTIONS.get(name.lower())
        if function is None:
            raise UsageError(f"unknown function '{name}'", f"known: {', '.join(FUNCTIONS)}")
        if bounds is not None:
            low, high = bounds
            if not all(map(math.isfinite, bounds)) or high - low < STEP * 2 * entries:
                raise UsageError(
                    f"the range {low:g} to {high:g} is too small for {entries} segments",
                    f"it needs {STEP * 2 * entries:g} or more",
                )
            if (high - low) / STEP > _MOST_POINTS:
                raise UsageError(
                    f"the range {low:g} to {high:g} is too large",
                    f"at most {_MOST_POINTS * STEP:g}",
                )
            function = replace(function, low=low, high=high)
        with np.errstate(all="ignore"):
            values = function.of(grid(function, STEP))
        if not np.isfinite(values).all() or np.abs(values).max() > 2.0**20:
            raise UsageError(
                f"{name} is not finite or too large over {function.low:g} to {function.high:g}",
                hint="give another --range",
            )
        return cls(function, entries, bits, seed, generations)

    @property
    def scales(self) -> tuple[float, float]:
        """Scales of stored inputs and outputs: powers of two."""
        return integer.scales(self.function, self.bits)


@dataclass(frozen=True, slots=True)
class Found:
    """Hold a table and its mean squared errors; `table` is None for one of every value."""

    request: Request
    method: str
    table: Piecewise | None
    mse: float
    rounded_mse: float  # after rounding the output to `bits` bits

    def row(self) -> dict[str, Any]:
        r = self.request
        return {
            "function": r.function.name,
            "method": self.method,
            "entries": 1 << r.bits if self.table is None else r.entries,
            "range": [r.function.low, r.function.high],
            "mse": self.mse,
            f"mse_int{r.bits}": self.rounded_mse,
        }

    def shown(self) -> dict[str, Any]:
        """Return the row with its errors as text."""
        return {k: f"{v:.2e}" if isinstance(v, float) else v for k, v in self.row().items()}

    def lines(self) -> dict[str, Any]:
        """Return breakpoints, slopes and intercepts."""
        if self.table is None:
            return {}
        t = self.table
        return {
            "breakpoints": t.breakpoints.tolist(),
            "slopes": t.slopes.tolist(),
            "intercepts": t.intercepts.tolist(),
        }

    def segments(self) -> list[dict[str, Any]]:
        assert self.table is not None
        t, f = self.table, self.request.function
        edges = [f.low, *t.breakpoints.tolist(), f.high]
        return [
            {
                "from": f"{edges[k]:.4f}", "to": f"{edges[k + 1]:.4f}", "slope": f"{a:.6f}",
                "intercept": f"{b + 0.0:.6f}",
            }
            for k, (a, b) in enumerate(zip(t.slopes, t.intercepts, strict=True))
        ]  # fmt: skip

    def output(self, x: Floats) -> Floats:
        """Return what is computed of stored values x, before the output is rounded."""
        return self.request.function.of(x) if self.table is None else self.table(x)


def calculate(
    request: Request, method: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> Found:
    """Return the table of a method: optimal, gqa, uniform or exact."""
    samples = Samples.of(request.function, grid(request.function, STEP))
    out = request.scales[1]
    if method == "exact":
        # Every stored input has its own entry: there is no error but that of rounding outputs.
        stored = Samples.of(request.function, grid(request.function, request.scales[0]))
        rounded = np.clip(np.round(stored.y / out), *_bounds(request.bits)) * out
        return Found(request, method, None, 0.0, float(np.mean((rounded - stored.y) ** 2)))
    if method == "gqa":
        table = genetic.search(
            samples, request.entries, request.seed, request.generations, progress=progress
        )
    else:
        table = (piecewise.optimal if method == "optimal" else piecewise.uniform)(
            samples, request.entries
        )
    return Found(request, method, table, samples.error(table), samples.error(table, out))


def _bounds(bits: int) -> tuple[int, int]:
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def write(request: Request, found: Sequence[Found], path: Path) -> None:
    """Write C, words or a picture, as the path's ending says; raises UsageError."""
    function = request.function
    if path.suffix == ".svg":
        x = grid(function, STEP)
        content = lut_svg(function, x, {f.method: f.output(x) for f in found})
    else:
        table = found[0].table
        assert table is not None
        try:
            stored = integer.integers(table, *request.scales, request.bits)
        except ValueError as error:
            raise UsageError(f"{function.name} does not fit 16-bit slopes", str(error)) from error
        if path.suffix == ".hex":
            content = intel_hex(words(stored))
        else:
            content = c_source(function, stored, header=path.suffix == ".h")
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written", error.strerror or str(error)) from error


_PUBLISHED = ("gelu", "hswish", "exp", "div", "rsqrt")


def with_errors(text: str, generations: int = genetic.GENERATIONS) -> str:
    """Return a page with the table of errors between its two markers made anew."""
    rows = []
    for name in _PUBLISHED:
        for entries in (8, 16):
            request = Request.checked(name, entries, None, 8, 0, generations)
            found = {m: calculate(request, m) for m in ("gqa", "optimal", "uniform", "exact")}
            row = {"function": name, "entries": entries}
            row |= {m: f"{f.mse:.1e}" for m, f in found.items() if m != "exact"}
            rows.append(row | {f"{m}, int8": f"{f.rounded_mse:.1e}" for m, f in found.items()})
    before, rest = text.split("<!-- begin errors -->")
    return (
        f"{before}<!-- begin errors -->\n{markdown(rows)}<!-- end errors -->"
        + rest.split("<!-- end errors -->")[1]
    )


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_errors(page.read_text(encoding="utf-8")), encoding="utf-8")
