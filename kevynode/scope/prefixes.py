"""Prefixes as bytes, and finding the longest one that a key begins with."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["PrefixMap", "to_bytes"]

_T = TypeVar("_T")


def to_bytes(text: bytes | str, what: str = "key") -> bytes:
    """``text`` as bytes; ``str`` is taken as UTF-8, with surrogate escapes for bytes that are none.

    Raises TypeError for anything else, naming it a ``what``, and UnicodeEncodeError (a ValueError) for a ``str`` with
    other lone surrogates.
    """
    if isinstance(text, str):
        return text.encode("utf-8", "surrogateescape")
    if not isinstance(text, bytes):
        raise TypeError(f"a {what} is bytes or str, not {type(text).__name__}")
    return text


class PrefixMap(Generic[_T]):
    """Values by prefix. A search costs at most one dictionary probe for each distinct length of a prefix."""

    __slots__ = ("_lengths", "_values")

    def __init__(self) -> None:
        self._values: dict[bytes, _T] = {}
        # How many prefixes have this length; the longest comes first.
        self._lengths: dict[int, int] = {}

    def add(self, prefix: bytes, value: _T) -> None:
        """Enter a prefix that is not there yet."""
        self._values[prefix] = value
        length = len(prefix)
        if length in self._lengths:
            self._lengths[length] += 1
        else:
            self._lengths = dict(sorted([*self._lengths.items(), (length, 1)], reverse=True))

    def remove(self, prefix: bytes) -> _T:
        """Take out a prefix that is there."""
        value = self._values.pop(prefix)
        self._lengths[len(prefix)] -= 1
        if not self._lengths[len(prefix)]:
            del self._lengths[len(prefix)]
        return value

    def get(self, prefix: bytes) -> _T | None:
        """What stands at exactly this prefix."""
        return self._values.get(prefix)

    def longest(self, key: bytes | str) -> _T | None:
        """What stands at the longest prefix that ``key`` begins with."""
        if isinstance(key, str):
            key = to_bytes(key)
        values = self._values
        # A length beyond the key's compares the whole key, which is right: nothing longer can be its prefix.
        for length in self._lengths:
            value = values.get(key[:length])
            if value is not None:
                return value
        return None

    def values(self) -> tuple[_T, ...]:
        """All values, in the order of their prefixes."""
        return tuple(self._values[prefix] for prefix in sorted(self._values))
