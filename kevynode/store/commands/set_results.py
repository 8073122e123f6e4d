"""How the commands on sets and sorted sets change many members at once, and tell the journal about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from .. import notify
from ..command import Args
from ..journal import Event
from ..rebuild import CHUNK, rebuild_commands
from ..store import Store
from ..values import Set, SortedSet

__all__ = ["emit_removal", "remove_members", "store_result"]

M = TypeVar("M", Set, SortedSet)

_VERBS: Final = {Set: b"SREM", SortedSet: b"ZREM"}


def remove_members(store: Store, argv: Args, kind: type[M], event: Event) -> int:
    """Remove the members that ``argv`` names behind a key and tell it as it was said; how many were there.

    ``event`` is what Valkey publishes for it; ``del`` follows where the key goes with its last member.
    """
    key = argv[1]
    value = store.write(key, kind)
    if value is None:
        return 0
    removed = sum(map(value.remove, argv[2:]))
    if removed:
        gone = ((notify.GENERIC, b"del", key),) if store.drop_if_empty(key, value) else ()
        store.emit(argv, key, event, *gone)
    return removed


def emit_removal(store: Store, key: bytes, value: Set | SortedSet, members: Sequence[bytes], event: Event) -> None:
    """Tell that ``members``, one at least, have been removed from ``value`` under ``key``, which goes if it is empty.

    ``event`` is what Valkey publishes for the removal; ``del`` follows where the key goes.
    """
    verb = _VERBS[type(value)]
    if store.drop_if_empty(key, value):
        command = (verb, key, *members) if len(members) == 1 else (b"DEL", key)
        store.emit(command, key, event, (notify.GENERIC, b"del", key))
        return
    last = (len(members) - 1) // CHUNK * CHUNK
    for start in range(0, last, CHUNK):
        store.emit((verb, key, *members[start : start + CHUNK]), key)
    store.emit((verb, key, *members[last:]), key, event)


def store_result(store: Store, key: bytes, value: Set | SortedSet, event: Event) -> int:
    """Put what a STORE command has found under ``key``, whatever was there; an empty result deletes the key.

    The key's deadline goes. ``event`` is published for a result with members, ``del`` for a deletion. Answers the
    number of members.
    """
    existed = store.lookup(key) is not None
    if not len(value):
        if existed:
            store.delete(key)
            store.emit((b"DEL", key), key, (notify.GENERIC, b"del", key))
        return 0
    if existed:
        store.emit((b"DEL", key), key)
    store.put(key, value)
    commands = rebuild_commands(key, value)
    for words in commands[:-1]:
        store.emit(words, key)
    store.emit(commands[-1], key, event)
    return len(value)
