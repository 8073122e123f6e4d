"""The tables inside hashes, sets and sorted sets: a plain dict up to ``SHARD_LIMIT`` entries, then a sharded one.

Sharded tables are scanned statelessly, copied on write shard by shard, and never grow in one long pause.
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any, Final, TypeAlias

from .sharded import SHARD_LIMIT, RandomSource, ShardedDict, is_roomy, slice_in_hash_order

__all__ = ["Table", "compact_table", "cut_up", "random_member", "scan_table", "table_memory"]

Table: TypeAlias = dict[bytes, Any] | ShardedDict[Any]

#: Up to this many entries a scan returns a table whole, as Valkey does with its compact encodings.
_WHOLE_LIMIT: Final = 128
#: Shards of a sharded table that one call compacts.
_STRETCH: Final = 128


def _growth() -> list[int]:
    """Bytes of a dict that has grown to 0, 1, 2, ... entries, one by one."""
    table: dict[int, None] = {}
    sizes = []
    for number in range(2 * SHARD_LIMIT + 1):
        sizes.append(sys.getsizeof(table))
        table[number] = None
    return sizes


_DICT_MEMORY: Final = _growth()


def table_memory(table: Table) -> int:
    """Bytes that a table takes without its keys and values; O(1), an estimate for a sharded one.

    Hashes spread evenly, so all shards are about as full; the directory doubles when the first of them is split, which
    is when a slot holds less than half of the limit on average and most shards still stand in two slots.
    """
    if type(table) is dict:
        return sys.getsizeof(table)
    assert isinstance(table, ShardedDict)
    slots = len(table.directory)
    filling = len(table) / slots
    if filling < SHARD_LIMIT / 2 and slots > 1:
        filling *= 2
        slots >>= 1
    return int(slots * _DICT_MEMORY[min(int(filling), 2 * SHARD_LIMIT)]) + 8 * len(table.directory)


def cut_up(table: dict[bytes, Any]) -> ShardedDict[Any]:
    """The same entries in a sharded table."""
    cut: ShardedDict[Any] = ShardedDict()
    for key, value in table.items():
        cut[key] = value
    return cut


def compact_table(table: Table, random: RandomSource) -> Table:
    """The same entries in less memory, if deletions have left much of it unused.

    A plain dict is made anew. A sharded table becomes a dict again when little is left; otherwise a stretch of it,
    somewhere, is worked over in place, so that no call takes long and many calls reach everything.
    """
    if isinstance(table, dict):
        return dict(table) if is_roomy(table) else table
    if len(table) <= SHARD_LIMIT // 4:
        return dict(table.items())
    position = 0 if len(table.directory) <= _STRETCH else random.getrandbits(64)
    for _ in range(_STRETCH):
        position = table.compact_at(position)
    return table


def scan_table(table: Table, cursor: int, count: int) -> tuple[int, list[bytes]]:
    """One step of HSCAN, SSCAN or ZSCAN: the next cursor (0 ends) and about ``count`` keys; see ``ShardedDict.scan``.

    Small tables come whole whatever the cursor, as Valkey's compact encodings do. Cursors are places in hash order in
    every form of a table, so they stay true when it changes its form.
    """
    if not isinstance(table, dict):
        return table.scan(cursor, count)
    if len(table) <= max(_WHOLE_LIMIT, count):
        return 0, list(table)
    return slice_in_hash_order(table, cursor, count)


def random_member(table: Table, random: RandomSource) -> bytes:
    """A key of a table that is not empty, at random."""
    if isinstance(table, dict):
        return next(islice(table, random.randrange(len(table)), None))
    member = table.random_key(random)
    assert member is not None
    return member
