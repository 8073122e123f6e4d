"""What a session has of each kind until it has something: shared, because thousands of clients never do."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, Final, TypeVar

__all__ = ["NOTHING", "NOTHING_WRITTEN", "own"]

K = TypeVar("K")
V = TypeVar("V")

#: What a session watches or listens to before it does.
NOTHING: Final[Mapping[bytes, Any]] = MappingProxyType({})
#: The keys that a session has written before it writes.
NOTHING_WRITTEN: Final[Set[bytes]] = frozenset()


def own(held: Mapping[K, V]) -> dict[K, V]:
    """What a session holds, to be changed: a new dictionary if it is what all share."""
    return held if isinstance(held, dict) else {}
