"""How many keys a slice holds, and a digest of them that does not depend on their order. Pure.

Source and target of a move compare both. The digests are equal exactly if the data are: the keys, their values and all
deadlines, those of fields too. What is equal in this sense is what :func:`~kevynode.store.rebuild.rebuild_commands`
tells: keys and fields that have expired and not been removed count, when a stream's consumers were last seen does not.

Each key gives a number, the BLAKE2b hash of what it holds; they are added modulo 2**256. So keys may come in any order,
as they lie in different shards on the two sides, and so may the fields of a hash and the members of a set. Where the
order is a part of the data it is a part of the hash. This finds what went wrong; it is no proof against somebody who
may choose both sides' data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final, assert_never

from ..reply import format_double
from ..store.stream_values import Stream, format_id
from ..store.values import Hash, List, Set, SortedSet, Value

__all__ = ["SLICE", "SliceDigest"]

#: Elements between two places at which a walk can be interrupted: a few milliseconds' work.
SLICE: Final = 1000

_SIZE: Final = 32
_MODULUS: Final = 1 << (8 * _SIZE)


class SliceDigest:
    """Counts keys and digests what they hold. Not thread-safe.

    What is walked must stay as it is until the walk is over: a quiesced slice, or frozen shards.
    """

    __slots__ = ("_sum", "_work", "keys")

    def __init__(self) -> None:
        #: Keys that have been added.
        self.keys = 0
        self._sum = 0
        # Elements since the last place where a walk could be interrupted.
        self._work = 0

    def add(self, key: bytes, value: Value, deadline: int | None = None) -> None:
        """Add one key with its ``deadline`` (unix ms) at once; O(elements)."""
        for _ in self.walk([(key, value, deadline)]):
            pass

    def walk(self, entries: Iterable[tuple[bytes, Value, int | None]]) -> Iterator[None]:
        """Add each (key, value, deadline in unix ms); yields after every :data:`SLICE` elements or so.

        Two keys must not be the same. The digest counts what was added when the walk has ended.
        """
        for key, value, deadline in entries:
            hasher = blake2b(digest_size=_SIZE)
            hasher.update(b";" if deadline is None else b"%d;" % deadline)
            _put(hasher, key)
            yield from self._content(hasher, value)
            self._sum += int.from_bytes(hasher.digest())
            self.keys += 1
            self._work += 1
            if self._work >= SLICE:
                self._sum %= _MODULUS
                self._work = 0
                yield

    @property
    def hexadecimal(self) -> str:
        """The digest of everything added, 64 hexadecimal digits; zeros for no key."""
        return f"{self._sum % _MODULUS:064x}"

    def _content(self, hasher: blake2b, value: Value) -> Iterator[None]:
        """Put a value into the hash of its key. What a kind begins with differs, so no two kinds are the same bytes."""
        match value:
            case bytes():
                hasher.update(b"=")
                _put(hasher, value)
            case Hash():
                deadlines = value.deadlines or {}
                yield from self._unordered(
                    hasher,
                    b"h",
                    ((field, content, b"%d" % deadlines[field] if field in deadlines else b"")
                     for field, content in value.fields.items()),
                )  # fmt: skip
            case Set():
                yield from self._unordered(hasher, b"s", ((member,) for member in value))
            case List():
                yield from self._ordered(hasher, b"l", ((element,) for element in value.elements))
            case SortedSet():
                scored = ((format_double(score), member) for score, member in value.order)
                yield from self._ordered(hasher, b"z", scored)
            case Stream():
                yield from self._ordered(hasher, b"x", _told(value))
            case _:
                assert_never(value)

    def _unordered(self, hasher: blake2b, kind: bytes, elements: Iterable[tuple[bytes, ...]]) -> Iterator[None]:
        """Elements of which no two are the same, in any order."""
        total = count = 0
        for words in elements:
            own = blake2b(digest_size=_SIZE)
            for word in words:
                _put(own, word)
            total += int.from_bytes(own.digest())
            count += 1
            self._work += 1
            if self._work >= SLICE:
                total %= _MODULUS
                self._work = 0
                yield
        hasher.update(b"%b%d:" % (kind, count) + (total % _MODULUS).to_bytes(_SIZE))

    def _ordered(self, hasher: blake2b, kind: bytes, elements: Iterable[tuple[bytes, ...]]) -> Iterator[None]:
        hasher.update(kind)
        for words in elements:
            hasher.update(b"%d;" % len(words))
            for word in words:
                _put(hasher, word)
            self._work += 1
            if self._work >= SLICE:
                self._work = 0
                yield


def _put(hasher: blake2b, word: bytes) -> None:
    """Put in one word, so that no two lists of words are the same bytes."""
    hasher.update(b"%d:" % len(word))
    hasher.update(word)


def _told(value: Stream) -> Iterator[tuple[bytes, ...]]:
    """Everything of a stream that is told, in one order."""
    yield b"stream", format_id(value.last_id), format_id(value.max_deleted_id), b"%d" % value.entries_added
    for entry_id, fields in value:
        yield format_id(entry_id), *fields
    for name, group in sorted(value.groups.items()):
        yield b"group", name, format_id(group.last_delivered)
        for consumer in sorted(group.consumers):
            yield b"consumer", consumer
        for entry_id, (consumer, delivered, count) in sorted(group.pending.items()):
            yield b"pending", format_id(entry_id), consumer, b"%d" % delivered, b"%d" % count
