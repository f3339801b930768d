"""Turn choices of bits and what they cost into rows, for terminal and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tinydeploy.ir import Graph
from tinydeploy.quantize.front import Point
from tinydeploy.quantize.mixed import Choice
from tinydeploy.quantize.quantmcu import Outcome


class FrontRow(msgspec.Struct, frozen=True, kw_only=True):
    """Give one choice of bits: bytes of arena and constants, estimated instructions, losses.

    `weights` has how many layers have how many bits, `narrow` the names of tensors with their
    bits; sqnr_db None stands for no error.
    """

    label: str
    ram_bytes: int
    const_bytes: int
    instructions: int
    sqnr_db: float | None
    agreement: float
    weights: dict[str, int]
    narrow: dict[str, int]
    chosen: bool


class PatchRow(msgspec.Struct, frozen=True, kw_only=True):
    """Give what QuantMCU would choose, by its own accounting (quantize.quantmcu.Outcome)."""

    bits: dict[str, int]
    memory_bytes: int
    outlier_memory_bytes: int
    bit_ops: float
    plain_bit_ops: float
    outlier_patches: float
    sqnr_db: float | None
    narrow_sqnr_db: float | None


class MixedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what budgets led to: the target, the budgets, the choices."""

    target: str
    ram_budget: int | None
    flash_budget: int | None
    front: list[FrontRow]
    quantmcu: PatchRow | None = None


def front_rows(graph: Graph, points: Sequence[Point]) -> list[FrontRow]:
    """Return one row per choice of bits of a float network."""
    return [
        FrontRow(
            label=p.label,
            ram_bytes=p.footprint.ram,
            const_bytes=p.footprint.flash,
            instructions=round(p.footprint.instructions),
            sqnr_db=_finite(p.sqnr),
            agreement=p.agreement,
            weights=_widths(p.choice),
            narrow={graph.tensors[t].name: bits for t, bits in p.choice.narrow.items()},
            chosen=p.chosen,
        )
        for p in points
    ]


def patch_row(graph: Graph, found: Outcome) -> PatchRow:
    """Return what QuantMCU would choose for a float network."""
    return PatchRow(
        bits={graph.tensors[i].name: b for i, b in found.bits.items()},
        memory_bytes=found.memory,
        outlier_memory_bytes=found.outlier_memory,
        bit_ops=found.bit_ops,
        plain_bit_ops=found.plain_bit_ops,
        outlier_patches=found.outlier_patches,
        sqnr_db=_finite(found.sqnr),
        narrow_sqnr_db=_finite(found.narrow_sqnr),
    )


def _finite(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def _widths(choice: Choice) -> dict[str, int]:
    """Return how many layers have weights of 4 and of 2 bits."""
    widths = list(choice.weights.values())
    return {str(bits): widths.count(bits) for bits in sorted({*widths}, reverse=True)}


def show_front(console: Any, document: MixedDocument) -> None:
    """Print the choices as a table."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title_justify="left",
                  title=f"bits on {document.target}: bytes of activations and of constants, "
                  "instructions (estimated)")  # fmt: skip
    for heading in ("", "RAM", "flash", "instructions", "dB", "same output", "layers of 4, 2 bits",
                    "narrow tensors"):  # fmt: skip
        table.add_column(heading, justify="left" if not heading else "right")
    for r in document.front:
        table.add_row(
            ("> " if r.chosen else "  ") + r.label, f"{r.ram_bytes:,}", f"{r.const_bytes:,}",
            f"{r.instructions:,}", "exact" if r.sqnr_db is None else f"{r.sqnr_db:.1f}",
            f"{100 * r.agreement:.1f} %",
            f"{r.weights.get('4', 0)}, {r.weights.get('2', 0)}", str(len(r.narrow)),
        )  # fmt: skip
    console.print(table)
    if (q := document.quantmcu) is None:
        return
    db = ["exact" if v is None else f"{v:.1f} dB" for v in (q.sqnr_db, q.narrow_sqnr_db)]
    console.print(
        f"QuantMCU  maps of {', '.join(map(str, q.bits.values()))} bits; {q.memory_bytes:,} bytes "
        f"({q.outlier_memory_bytes:,} for the {100 * q.outlier_patches:.0f} % of patches with "
        f"outliers), {q.plain_bit_ops / q.bit_ops:.2f} times fewer bit operations than 8 bits in "
        f"patches, {db[0]} ({db[1]} with no patch spared); simulated, by its own accounting",
        markup=False,
    )
