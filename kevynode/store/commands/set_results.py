"""How the commands on sets and sorted sets tell the journal about many members at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .. import notify
from ..journal import Event
from ..rebuild import CHUNK, rebuild_commands
from ..store import Store
from ..values import Set, SortedSet

__all__ = ["emit_removal", "store_result"]

_VERBS: Final = {Set: b"SREM", SortedSet: b"ZREM"}


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
