"""Turn templates and values into text, refusing undefined names."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from tinydeploy import resources
from tinydeploy.codegen import names


@cache
def environment() -> Environment:
    """Return the Jinja environment over the templates folder."""
    env = Environment(
        loader=FileSystemLoader(resources.folder("templates")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # C, not HTML; names.comment and names.identifier escape for C
    )
    env.filters["comment"] = names.comment
    env.filters["real"] = real
    env.filters["values"] = values
    env.filters["hex"] = hex
    env.filters["dims"] = lambda shape: "][".join(map(str, shape))
    return env


def render(template: str, **context: Any) -> str:
    return environment().get_template(template).render(**context)


def read(template: str) -> bytes:
    """Return a file of the templates folder as it is."""
    return (resources.folder("templates") / template).read_bytes()


def real(value: float) -> str:
    """Return a C float literal that reads back as exactly this float32."""
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def values(array: NDArray[Any], width: int = 96) -> str:
    """Return the elements of an integer array as lines of C initialisers."""
    lowest = np.iinfo(np.int32).min
    texts = ["(-2147483647 - 1)" if v == lowest else str(v) for v in array.reshape(-1).tolist()]
    per_line = max(1, width // (max(map(len, texts), default=1) + 2))
    lines = (", ".join(texts[k : k + per_line]) for k in range(0, len(texts), per_line))
    return ",\n    ".join(lines)
