"""Bytes of memory that Python's objects take, as far as values are made of them."""

from __future__ import annotations

from typing import Final

__all__ = ["BYTES_OVERHEAD", "FLOAT_MEMORY", "PLACE_MEMORY", "PLAIN_MEMORY", "TUPLE_MEMORY", "bytes_memory"]

#: CPython's allocator rounds to 16 bytes; a bytes object is 33 bytes and its content.
BYTES_OVERHEAD: Final = 33 + 15
FLOAT_MEMORY: Final = 32
#: A tuple of two.
TUPLE_MEMORY: Final = 64
#: A container around a plain list that is nearly empty.
PLAIN_MEMORY: Final = 64 + 80
#: A place in a list.
PLACE_MEMORY: Final = 8


def bytes_memory(value: bytes) -> int:
    """Bytes of memory that one ``bytes`` object takes."""
    return (len(value) + BYTES_OVERHEAD) & ~15
