"""Fills a store in a process of its own and prints how much memory the process and the store's own count grew by.

``python -m support.memory_probe KIND`` prints two numbers: bytes of resident memory, bytes of ``Store.memory()``.
"""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kevynode.store.store import Store
from kevynode.store.values import Hash, List, Set, SortedSet


def _strings(store: Store) -> None:
    for number in range(300_000):
        store.put(b"user:%d:name" % number, b"value of key %d" % number)


def _long_strings(store: Store) -> None:
    for number in range(20_000):
        store.put(b"page:%d" % number, b"%08d" % number * 300)


def _deadlines(store: Store) -> None:
    for number in range(200_000):
        # One object for both dictionaries, as with SET k v EX n of a new key.
        key = b"session:%d" % number
        store.put(key, b"token %d" % number)
        store.set_deadline(key, 1_700_000_000_000 + number)


def _own_deadlines(store: Store) -> None:
    for number in range(200_000):
        # An object for each dictionary, as with EXPIRE of a key that is there.
        store.put(b"session:%d" % number, b"token %d" % number)
        store.set_deadline(b"session:%d" % number, 1_700_000_000_000 + number)


def _small_hashes(store: Store) -> None:
    for number in range(60_000):
        value = store.write_or_create(b"person:%d" % number, Hash)
        for field in (b"name", b"mail", b"city", b"born"):
            value.put(b"%s" % field, b"%s of %d" % (field, number))
        store.commit()


def _field_deadlines(store: Store) -> None:
    value = store.write_or_create(b"sessions", Hash)
    for number in range(150_000):
        value.put(b"session:%d" % number, b"token %d" % number)
        value.set_deadline(b"session:%d" % number, 1_700_000_000_000 + number)
    store.commit()


def _big_hash(store: Store) -> None:
    value = store.write_or_create(b"people", Hash)
    for number in range(300_000):
        value.put(b"name:%d" % number, b"value %d" % number)
    store.commit()


def _big_set(store: Store) -> None:
    value = store.write_or_create(b"members", Set)
    for number in range(500_000):
        value.add(b"member:%d" % number)
    store.commit()


def _small_sets(store: Store) -> None:
    for number in range(60_000):
        value = store.write_or_create(b"tags:%d" % number, Set)
        for member in range(10):
            value.add(b"tag %d" % (number + member))
        store.commit()


def _list(store: Store) -> None:
    value = store.write_or_create(b"queue", List)
    for number in range(500_000):
        value.push_right(b"job number %d" % number)
    store.commit()


def _small_lists(store: Store) -> None:
    for number in range(40_000):
        value = store.write_or_create(b"queue:%d" % number, List)
        for element in range(10):
            value.push_right(b"job %d" % (number + element))
        store.commit()


def _sorted_set(store: Store) -> None:
    value = store.write_or_create(b"scores", SortedSet)
    for number in range(200_000):
        value.put(b"player:%d" % number, number * 7919 % 200_003 + 0.5)
    store.commit()


def _small_sorted_sets(store: Store) -> None:
    for number in range(20_000):
        value = store.write_or_create(b"board:%d" % number, SortedSet)
        for member in range(10):
            value.put(b"player %d" % (number + member), member + 0.5)
        store.commit()


KINDS: Final[dict[str, Callable[[Store], None]]] = {
    "strings": _strings,
    "long-strings": _long_strings,
    "deadlines": _deadlines,
    "own-deadlines": _own_deadlines,
    "small-hashes": _small_hashes,
    "big-hash": _big_hash,
    "field-deadlines": _field_deadlines,
    "small-sets": _small_sets,
    "big-set": _big_set,
    "small-lists": _small_lists,
    "list": _list,
    "small-sorted-sets": _small_sorted_sets,
    "sorted-set": _sorted_set,
}


def resident() -> int:
    """Bytes of memory that this process holds (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell VmRSS")


def measure(kind: str) -> tuple[int, int]:
    """Fill a store with values of one kind: (growth of the process, growth of the store's count), in bytes."""
    store = Store(random.Random(1))
    # The interpreter and its libraries are loaded by now.
    gc.collect()
    process, counted = resident(), store.memory()
    KINDS[kind](store)
    gc.collect()
    return resident() - process, store.memory() - counted


if __name__ == "__main__":
    print(*measure(sys.argv[1]))  # noqa: T201
