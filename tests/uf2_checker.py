"""Read a UF2 file as a boot loader does, straight from the specification's table of fields.

https://github.com/microsoft/uf2, "File format" and "Payload sizes".
"""

from __future__ import annotations


def read_uf2(content: bytes, family: int) -> dict[int, bytes]:
    """Return pages by address; fails for a file that a boot loader would not take whole."""
    assert content and len(content) % 512 == 0
    total = len(content) // 512
    pages: dict[int, bytes] = {}
    for index in range(total):
        block = content[512 * index : 512 * (index + 1)]

        def word(offset: int, block: bytes = block) -> int:
            return int.from_bytes(block[offset : offset + 4], "little")

        assert block[:4] == b"UF2\n"
        assert word(4) == 0x9E5D5157 and word(508) == 0x0AB16F30
        flags, address, size = word(8), word(12), word(16)
        assert not flags & 0x00000001, "marked as not for the main flash"
        assert not flags & 0x00001000, "marked as a file container"
        assert word(20) == index and word(24) == total
        assert size == 256 and address % size == 0
        assert flags & 0x00002000 and word(28) == family
        assert not any(block[32 + size : 508]), "the rest of the block is zero"
        assert address not in pages, "no page comes twice"
        pages[address] = block[32 : 32 + size]
    assert list(pages) == sorted(pages)
    return pages
