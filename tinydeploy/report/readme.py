"""Turn the operators and targets into the tables of the README.

python -m tinydeploy.report.readme README.md
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tinydeploy.ops.checks import int8_in_out, int8_or_int16
from tinydeploy.report.catalogue import op_rows, target_rows
from tinydeploy.report.tables import markdown


def with_tables(text: str) -> str:
    """Return the text with the block after each marker replaced by its table.

    A block is `<!-- begin NAME -->` to `<!-- end NAME -->`; names are operators and targets.
    """
    narrow, wide = (" ".join((c.__doc__ or "").split()) for c in (int8_in_out, int8_or_int16))
    operators = [
        {
            "operator": row["operator"],
            "types": "int8, int16" if wide in row["requires"] else "int8",
            "supports": row["supports"],
            # What the types say is stated once, above the table.
            "requires": " ".join(r for r in row["requires"] if r not in (narrow, wide)),
        }
        for row in op_rows()
    ]
    for name, rows in (("operators", operators), ("targets", target_rows())):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        table = markdown(rows)
        text = block.sub(lambda _, b=begin, t=table, e=end: f"{b}\n{t}{e}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
