"""DEBUG DIGEST: one hash over all data, the same for equal data whatever the order, and the same as Valkey's.

Every key gives a digest of its own; the digest of everything is their exclusive or. A key's deadline counts as being
there, not by its time; a field's does not count, and neither do the groups of a stream.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from ..reply import format_double
from ..store.store import Store
from ..store.stream_values import Stream
from ..store.values import Hash, List, Set, SortedSet, Value

__all__ = ["data_digest", "value_digest"]

_SIZE: Final = 20
_DATABASE: Final = bytes(4)


class _Digest:
    """Twenty bytes that data are mixed into: ``mix`` minds the order, ``add`` does not."""

    def __init__(self) -> None:
        self._value = 0

    def add(self, data: bytes) -> None:
        self._value ^= int.from_bytes(sha1(data, usedforsecurity=False).digest())

    def mix(self, data: bytes) -> None:
        self.add(data)
        self._value = int.from_bytes(sha1(self.digest(), usedforsecurity=False).digest())

    def digest(self) -> bytes:
        return self._value.to_bytes(_SIZE)

    def hexadecimal(self) -> bytes:
        return self.digest().hex().encode()


def _mix_value(digest: _Digest, value: Value, deadline: int | None, now: int) -> None:
    match value:
        case bytes():
            digest.mix(_type(0))
            digest.mix(value)
        case List():
            digest.mix(_type(1))
            for element in value.elements:
                digest.mix(element)
        case Set():
            digest.mix(_type(2))
            for member in value:
                digest.add(member)
        case SortedSet():
            digest.mix(_type(3))
            for member, score in value.scores.items():
                pair = _Digest()
                pair.mix(member)
                pair.mix(format_double(score))
                digest.add(pair.digest())
        case Hash():
            digest.mix(_type(4))
            for field, content in value.live_items(now):
                pair = _Digest()
                pair.mix(field)
                pair.mix(content)
                digest.add(pair.digest())
        case Stream():
            digest.mix(_type(6))
            for entry_id, fields in value:
                digest.mix(b"%d.%d" % entry_id)
                for word in fields:
                    digest.mix(word)
    if deadline is not None:
        digest.add(b"!!expire!!")


def _type(number: int) -> bytes:
    return number.to_bytes(4)


def value_digest(store: Store, key: bytes) -> bytes:
    """The digest of one value, in hexadecimal digits; zeros if the key does not exist. Takes O(N) of its elements."""
    digest = _Digest()
    value = store.peek(key)
    if value is not None:
        _mix_value(digest, value, store.deadline(key), store.now)
    return digest.hexadecimal()


def data_digest(store: Store) -> bytes:
    """The digest of all data, in hexadecimal digits; zeros if there is none. Walks everything."""
    total = _Digest()
    if len(store.keyspace):
        total.mix(_DATABASE)
        for shard in store.keyspace.shards():
            for key, value in shard.items():
                deadline = shard.deadlines.get(key)
                if deadline is not None and deadline < store.now:
                    continue
                digest = _Digest()
                digest.mix(key)
                _mix_value(digest, value, deadline, store.now)
                total.add(digest.digest())
    return total.hexadecimal()
