"""Hash slots, as cluster clients divide keys: CRC16 of the key, or of what stands in its first braces."""

from __future__ import annotations

from binascii import crc_hqx
from typing import Final

__all__ = ["SLOTS", "key_slot"]

SLOTS: Final = 16384


def key_slot(key: bytes) -> int:
    """The slot of a key; keys with the same ``{tag}`` share one.

    >>> key_slot(b"foo"), key_slot(b"user:{foo}:name"), key_slot(b"{}foo")
    (12182, 12182, 9500)
    """
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        if stop > start + 1:
            key = key[start + 1 : stop]
    return crc_hqx(key, 0) % SLOTS
