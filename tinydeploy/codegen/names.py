"""Turn names from a model into text that is safe in C, in a path and in a comment."""

from __future__ import annotations

import re


def identifier(name: str, limit: int = 40) -> str:
    """Return a lower-case C identifier of at most `limit` characters, also safe as a file name."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:limit].rstrip("_")
    if not text or text[0].isdigit():
        text = f"model_{text}".rstrip("_")
    # Words that a compiler or a file system keeps for itself, headers of the C library that
    # <name>.h would hide, and names of files that stand beside the generated ones.
    taken = text in _RESERVED or text in _HEADERS
    if taken or text.startswith("td_") or text.endswith(("_kernels", "_weights")):
        return f"{text}_model"
    return text


def comment(text: str, limit: int = 80) -> str:
    """Return text that cannot end a C comment, continue a line or leave printable ASCII."""
    clean = re.sub(r"[^\x20-\x7e]", "?", text)[:limit].replace("\\", "/")
    # A space between the two characters of */ and /* and of any trigraph, overlapping or not.
    return re.sub(r"\*(?=/)|/(?=\*)|\?(?=\?)", lambda m: m[0] + " ", clean)


# fmt: off
_RESERVED = frozenset((
    "td", "con", "prn", "aux", "nul", "main", "int", "char", "float", "double", "void", "static",
    "const", "return", "if", "else", "for", "while", "do", "switch", "case", "break", "default",
    "struct", "union", "enum", "typedef", "sizeof", "short", "long", "signed", "unsigned", "auto",
    "extern", "register", "volatile", "inline", "goto", "continue", "class", "new", "delete",
    "this", "template", "typename", "public", "private", "protected", "virtual", "friend",
    "operator", "using", "namespace", "try", "catch", "throw", "bool", "true", "false", "and",
    "or", "not", "xor", "asm", "export", "import", "module", "firmware_model", "start",
))
_HEADERS = frozenset((
    "assert", "complex", "ctype", "errno", "fenv", "inttypes", "iso646", "limits", "locale", "math",
    "setjmp", "signal", "stdalign", "stdarg", "stdatomic", "stdbool", "stddef", "stdint", "stdio",
    "stdlib", "stdnoreturn", "string", "strings", "tgmath", "threads", "time", "uchar", "unistd",
    "wchar", "wctype", "features", "endian", "alloca", "memory", "new", "limits", "pthread",
))
# fmt: on
