"""Primaries that are started again with what an append-only file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support.replication_harness import Primary
from support.store_harness import find_command

from kevynode.replicate.lineage import Lineage
from kevynode.store.apply import Applier

OLD = Lineage(77).branch(78, 4)
Group = list[list[bytes]]


def words(text: str) -> list[bytes]:
    return text.encode().split()


def write(primary: Primary, *group: list[bytes]) -> None:
    """Run commands as one group."""
    store = primary.harness.store
    for command in group:
        find_command(command).handler(store, command)
    store.commit()


def load(primary: Primary, first: int, groups: Sequence[Group], own: bool = True) -> int:
    """Find these groups in the files, as a loader tells of them; the next offset."""
    replication, store = primary.replication, primary.harness.store
    # It counts from 0 on.
    store.journal.observers.clear()
    replication.loading = True
    applier = Applier(store)
    for group in groups:
        applier.apply_all(group)
        store.journal.pending.clear()
        replication.restore_entries(first, group, first + len(group), len(group) > 1, own)
        first += len(group)
    return first


def restart(
    *groups: str, first: int = 0, opens: bool = True, lineage: Lineage = OLD, local: bool = False, own: bool = True,
    shards: int = 1, **settings: Any,
) -> Primary:  # fmt: skip
    """A node that has found these groups, whose commands are separated by semicolons, and has begun to serve."""
    primary = Primary(**settings)
    primary.replication.upstream_shards = shards
    offset = load(primary, first, [[words(one) for one in text.split(";")] for text in groups], own)
    primary.replication.restored(lineage, offset, {}, local, opens)
    primary.replication.loading = False
    return primary


def frames_sent(primary: Primary, offset: int, history: int = OLD.history, **asked: Any) -> bytes:
    """What a replica gets behind the answer to its handshake."""
    data = primary.take(primary.connect(offset, history=history, **asked))
    return data.partition(b"+LINEAGE")[2].partition(b"\r\n")[2].partition(b"+PING")[0]
