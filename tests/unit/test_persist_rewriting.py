"""Rewriting: the base holds what was there when it began, clients go on meanwhile, and giving up harms nothing."""

from __future__ import annotations

import errno
import random
from typing import Any

import pytest
from support.append_only import FOLDER, Node, new_node, read_folder
from support.memory_disk import Call, MemoryDisk
from support.store_harness import check_memory, content

from kevynode.persist.base import encode_base
from kevynode.persist.rewriting import Rewrite, should_rewrite
from kevynode.store.apply import Applier
from kevynode.store.staging import Staging


@pytest.mark.parametrize(
    ("size", "base", "percentage", "min_size", "expected"),
    [
        (200, 100, 100, 50, True),
        (199, 100, 100, 50, False),
        (200, 100, 100, 200, False),
        (201, 100, 0, 50, False),
        (150, 100, 50, 50, True),
        (100, 0, 100, 50, True),
        (50, 0, 100, 50, False),
    ],
)
def test_when_files_have_outgrown_their_base(
    size: int, base: int, percentage: int, min_size: int, expected: bool
) -> None:
    assert should_rewrite(size, base, percentage, min_size) is expected


def filled(keys: int = 3000) -> tuple[MemoryDisk, Node]:
    """A node with data of every type, some of it large."""
    disk, node = new_node()
    for first in range(0, keys, 500):
        node.do_together(*[("SET", f"key{number}", f"v{number}") for number in range(first, first + 500)])
    words = [f"w{number}" for number in range(2500)]
    node.do("RPUSH", "list", *words)
    node.do("SADD", "set", *words)
    node.do("HSET", "hash", *(word for name in words for word in (name, "x")))
    node.do("HPEXPIREAT", "hash", "1900000000000", "FIELDS", "3", "w1", "w1200", "w2400")
    node.do("ZADD", "zset", *(word for number, name in enumerate(words) for word in (str(number / 8), name)))
    node.do("SET", "long", "v" * 200_000)
    node.do("PEXPIREAT", "list", "1900000000000")
    node.do("PEXPIREAT", "key1", "1900000000000")
    applier = Applier(node.store)
    for number in range(1, 1200):
        applier.apply([b"XADD", b"stream", b"%d-1" % number, b"f", b"v"])
    for line in (b"XGROUP CREATE stream g 5-1", b"XGROUP CREATE empty g 0-0 MKSTREAM"):
        applier.apply(line.split())
    for number in range(1, 1100):
        for key in (b"stream", b"empty"):
            applier.apply(_claim(key, number))
    node.store.commit()
    assert node.writer.write()
    return disk, node


def _claim(key: bytes, number: int) -> list[bytes]:
    return [b"XCLAIM", key, b"g", b"c", b"0", b"%d-1" % number, *b"TIME 5 RETRYCOUNT 1 FORCE JUSTID".split()]


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_written_meanwhile_is_there_and_the_rest_is_as_it_was(fresh: bool) -> None:
    disk, node = filled()
    draw = random.Random(1)
    steps = 0

    def between() -> None:
        nonlocal steps
        steps += 1
        number = draw.randrange(3000)
        node.do("APPEND", f"key{number}", "!")
        node.do("RPUSH", "list", "more")
        node.do("HSET", "hash", f"w{number}", "changed")
        node.do("SREM", "set", f"w{number}")
        node.do("ZADD", "zset", "1", f"w{number}")
        node.do("DEL", f"key{draw.randrange(3000)}")
        node.writer.write()

    before = node.store.journal.offset
    rewrite = node.rewrite(fresh=fresh, between=between)
    assert (rewrite.done, rewrite.failed) == (True, None)
    assert rewrite.keys == 3007
    assert rewrite.commands > rewrite.keys
    assert steps > 10
    node.writer.write()
    assert len(disk.list(FOLDER)) == 3
    for found in (disk.kill(), disk.crash(1) if node.sync() else disk.kill()):
        store, loaded = read_folder(found)
        check_memory(store)
        assert content(store) == node.content()
        assert loaded.offset == node.store.journal.offset > before


def test_the_pieces_of_a_base_are_small_whatever_is_in_it() -> None:
    _, node = filled()
    shards = node.store.freeze()
    pieces = 0
    for piece in encode_base(shards):
        assert 0 < len(piece.data) < 256 * 1024
        pieces += 1
    assert shards == []
    assert pieces > 10


@pytest.mark.slow
def test_entries_are_durable_while_a_base_is_written() -> None:
    disk, node = filled()
    rewrite = Rewrite(node.writer, node.store)
    steps = rewrite.steps()
    job = next(steps)
    assert job is not None
    job.run()
    assert next(steps) is None
    node.do("SET", "new", "value")
    node.writer.write()
    assert node.sync()
    assert node.writer.durable_mark == node.writer.mark
    for seed in range(10):
        assert content(read_folder(disk.crash(seed))[0]) == node.content()
    rewrite.close()
    assert rewrite.failed is not None
    assert not [name for name in disk.list(FOLDER) if "base" in name]
    assert content(read_folder(disk.kill())[0]) == node.content()


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("stop", range(4))
def test_giving_up_at_any_step_leaves_what_was_in_use(fresh: bool, stop: int) -> None:
    disk, node = filled(1000)
    before = node.content()
    rewrite = Rewrite(node.writer, node.store, fresh=fresh)
    steps = rewrite.steps()
    for _, job in zip(range(stop), steps, strict=False):
        if job is not None:
            job.run()
    node.do("SET", "later", "1")
    node.writer.write()
    rewrite.close()
    rewrite.close()
    assert rewrite.failed is not None
    assert not rewrite.done
    assert not [name for name in disk.list(FOLDER) if "base" in name]
    assert (node.writer.failed is not None) == fresh
    node.writer.write()
    assert content(read_folder(disk.kill())[0]) == (before if fresh else node.content())
    assert node.rewrite(fresh=True).done
    assert content(read_folder(disk.kill())[0]) == node.content()
    assert list(rewrite.steps()) == []


def test_a_job_that_was_given_up_before_it_ran_proves_nothing() -> None:
    disk, node = filled(1000)
    for fresh in (False, True):
        rewrite = Rewrite(node.writer, node.store, fresh=fresh)
        last: Any = None
        for job in rewrite.steps():
            if job is not None and last is not None and rewrite.commands > 1000:
                break
            if job is not None:
                job.run()
            last = job or True
        rewrite.close()
        assert not rewrite.done
        assert node.rewrite(fresh=True).done
    assert content(read_folder(disk.kill())[0]) == node.content()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["write", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_base_that_cannot_be_written_is_reported(method: str, fresh: bool) -> None:
    disk, node = filled(1000)
    node.sync()
    rewrite = Rewrite(node.writer, node.store, fresh=fresh)
    for number, job in enumerate(rewrite.steps()):
        if number == 2:
            disk.fail_next(method, errno.EIO)
        if job is not None:
            job.run()
    rewrite.close()
    assert rewrite.failed is not None
    assert "Input/output error" in rewrite.failed
    assert (node.writer.failed is not None) == fresh
    node.do("SET", "later", "1")
    assert node.writer.write() is not fresh
    if not fresh:
        assert content(read_folder(disk.kill())[0]) == node.content()
    assert node.rewrite(fresh=True).done
    assert content(read_folder(disk.kill())[0]) == node.content()


def test_a_rewrite_while_nothing_can_be_written_is_refused() -> None:
    disk, node = filled(1000)
    disk.fill_up()
    node.do("SET", "a", "1")
    rewrite = Rewrite(node.writer, node.store)
    assert rewrite.failed == node.writer.failed
    assert "No space left" in (rewrite.failed or "")
    assert list(rewrite.steps()) == []
    rewrite.close()
    assert not node.rewrite(fresh=True).done
    disk.make_room()
    assert node.rewrite(fresh=True).done


@pytest.mark.parametrize("first_is_fresh", [False, True])
@pytest.mark.parametrize("stop", range(1, 6))
def test_other_data_end_a_rewrite_that_is_under_way(first_is_fresh: bool, stop: int) -> None:
    disk, node = filled(1000)
    first = Rewrite(node.writer, node.store, fresh=first_is_fresh)
    pending = None
    for _, job in zip(range(stop), first.steps(), strict=False):
        if pending is not None:
            pending.run()
        pending = job
    staging = Staging(node.store.epoch)
    staging.put(b"new", b"data")
    node.store.replace_all(staging, 5)
    second = Rewrite(node.writer, node.store, fresh=True)
    node.do("SET", "after", "1")
    assert not node.writer.write()
    # The other thread comes to its end only now.
    if pending is not None:
        pending.run()
    first.close()
    assert not first.done
    for job in second.steps():
        if job is not None:
            job.run()
    second.close()
    assert second.done
    assert node.writer.write()
    store, loaded = read_folder(disk.kill())
    assert content(store) == node.content() == {b"new": (b"data", None), b"after": (b"1", None)}
    assert loaded.offset == 6
    assert len(disk.list(FOLDER)) == 3


def test_a_fresh_rewrite_that_another_has_taken_the_place_of_ends_by_itself() -> None:
    disk, node = filled(1000)
    first = Rewrite(node.writer, node.store, fresh=True)
    steps = first.steps()
    assert next(steps) is None
    second = Rewrite(node.writer, node.store, fresh=True)
    assert list(steps) == []
    assert first.failed == "writing a new base failed: another one has begun"
    third = Rewrite(node.writer, node.store, fresh=True)
    assert list(second.steps()) == []
    assert second.failed is not None
    for job in third.steps():
        if job is not None:
            job.run()
    assert third.done
    assert node.writer.failed is None
    assert content(read_folder(disk.kill())[0]) == node.content()
    assert len(disk.list(FOLDER)) == 3


def test_a_node_that_begins_with_data_writes_them_first() -> None:
    disk = MemoryDisk()
    node = Node(disk)
    node.do("SET", "a", "1")
    assert not node.writer.write()
    assert node.writer.failed == "the append-only file has not been started"
    assert node.rewrite(fresh=True).done
    node.do("SET", "b", "2")
    assert node.writer.write()
    store, loaded = read_folder(disk.kill())
    assert content(store) == node.content()
    assert loaded.offset == 2


def test_a_base_is_synced_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kevynode.persist.rewriting._SYNC", 50_000)
    disk, node = filled(1000)
    before = disk.calls.count(Call("sync", FOLDER + "/temp-appendonly.aof.1.base.aof"))
    assert node.rewrite().done
    syncs = disk.calls.count(Call("sync", FOLDER + "/temp-appendonly.aof.1.base.aof")) - before
    assert 3 < syncs < 20
    disk.fail_next("sync", errno.EIO, times=3)
    rewrite = node.rewrite(fresh=True)
    assert "Input/output error" in (rewrite.failed or "")
    assert rewrite.failed == node.writer.failed


@pytest.mark.parametrize("at_the_end", [False, True])
def test_an_increment_that_fails_beside_its_base_ends_both(at_the_end: bool) -> None:
    disk, node = filled(1000)
    before = node.content()
    rewrite = Rewrite(node.writer, node.store, fresh=True)
    steps = rewrite.steps()
    assert next(steps) is None

    def fail(call: Call) -> None:
        if call.method == "write" and "incr" in call.path:
            disk.fail_next("write", errno.ENOSPC)

    disk.before = fail
    node.do("SET", "later", "1")
    if not at_the_end:
        assert not node.writer.write()
    for job in steps:
        assert job is None, "no base may come into use"
    disk.before = None
    rewrite.close()
    assert rewrite.failed is not None
    assert rewrite.failed == node.writer.failed or rewrite.failed in f"writing a new base failed: {node.writer.failed}"
    assert len(disk.list(FOLDER)) == 2
    assert content(read_folder(disk.kill())[0]) == before
    assert node.rewrite(fresh=True).done


def test_a_sync_may_end_when_its_file_is_no_longer_written_to() -> None:
    disk, node = filled(1000)
    sync = node.writer.begin_sync()
    assert sync is not None
    marks = node.writer.durable_mark
    rewrite = Rewrite(node.writer, node.store, fresh=True)
    steps = rewrite.steps()
    next(steps)
    sync.run()
    node.writer.end_sync(sync)
    assert node.writer.durable_mark == marks
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync.file.write(b"more")
    for job in steps:
        if job is not None:
            job.run()
    assert rewrite.done
    assert node.writer.durable_mark == node.writer.mark
    assert len(disk.list(FOLDER)) == 3
    # The same with an increment in place of the old one.
    node.do("SET", "a", "1")
    node.writer.write()
    sync = node.writer.begin_sync()
    assert sync is not None
    change = node.writer.begin_increment()
    assert change is not None
    change.run()
    assert node.writer.end_increment(change)
    sync.run()
    node.writer.end_sync(sync)
    assert node.writer.durable_mark == node.writer.mark
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync.file.write(b"more")


def test_a_stream_of_few_entries_and_many_pending_is_walked_through() -> None:
    disk, node = new_node()
    applier = Applier(node.store)
    applier.apply(b"XADD stream 1-1 f v".split())
    applier.apply(b"XGROUP CREATE stream g 1-1".split())
    for number in range(1, 1500):
        applier.apply(_claim(b"stream", number))
    node.store.commit()
    assert node.rewrite(fresh=True).done
    assert content(read_folder(disk.kill())[0]) == node.content()
