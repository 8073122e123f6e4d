"""Counting the keys of a slice: right, and a little at a time."""

from __future__ import annotations

import random

import trio

from kevynode.scope.move_jobs import KeyCount, count_in
from kevynode.store.keyspace import KeyShard
from kevynode.store.store import Store
from kevynode.store.values import Value


def shard(prefix: bytes, keys: int) -> KeyShard:
    """A shard with so many keys under a prefix."""
    made = KeyShard()
    value: Value = b"v"
    made.update({prefix + b"%d" % number: value for number in range(keys)})
    return made


async def test_only_keys_under_the_prefix_count() -> None:
    assert await count_in([shard(b"a:", 3), shard(b"b:", 2), shard(b"a", 4), KeyShard()], b"a:") == 3
    assert await count_in([], b"a:") == 0


async def test_others_have_their_turn_every_few_thousand_keys() -> None:
    """However full the shards are, and however many there are."""
    for shards in ([shard(b"a:", 1000)] * 64, [KeyShard()] * 2000):
        turns = 0

        async def run() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            found = await count_in(shards, b"a:")
            counted = turns
            nursery.cancel_scope.cancel()
        assert found == sum(map(len, shards))
        assert counted >= 12, counted


async def test_what_was_counted_is_freed_bit_by_bit() -> None:
    """By whoever empties ``store.discarded``, and not when the count is given up."""
    store = Store(random.Random(1))

    def write(number: int) -> None:
        store.put(b"a:%d" % number, b"v")
        store.emit((b"SET", b"a:%d" % number, b"v"), b"a:%d" % number)
        store.settle()
        store.commit()

    for number in range(100):
        write(number)
    count = KeyCount(store, b"a:")
    await count.run()
    counted = list(store.keyspace.shards())
    write(100)
    assert count.now() == 101
    count.close()
    count.close()
    live = list(store.keyspace.shards())
    left = [shard for shard in counted if not any(shard is other for other in live)]
    assert left
    assert all(any(shard is other for other in store.discarded) for shard in left)
