"""The writer of the append-only file: what it claims when, and what it owns up to when the disk fails it."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from support.append_only import FOLDER, INCREMENT, Node, new_node, read_folder
from support.store_harness import content

from kevynode.persist.annotations import UpstreamCursor
from kevynode.persist.writer import AppendOnlyWriter
from kevynode.replicate.lineage import Lineage
from kevynode.store.journal import Origin
from kevynode.store.staging import Staging

UPSTREAM = Origin("10.0.0.1:7001", 77)


def claims(writer: AppendOnlyWriter) -> tuple[int, int, int]:
    return writer.mark, writer.written_mark, writer.durable_mark


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
def test_marks_follow_write_and_sync(policy: Any) -> None:
    _, node = new_node(policy)
    writer = node.writer
    assert claims(writer) == (0, 0, 0)
    assert writer.begin_sync() is None
    node.do("SET", "a", "1")
    assert claims(writer) == (1, 0, 0)
    assert writer.reply_mark == 0
    writer.write()
    assert claims(writer) == (1, 1, 0)
    assert (writer.reply_mark, writer.ship_offset) == ((0, 0) if policy == "always" else (1, 1))
    job = writer.begin_sync()
    assert job is not None
    assert writer.begin_sync() is None
    node.do("SET", "a", "2")
    writer.write()
    job.run()
    writer.end_sync(job)
    # What was written while it ran may be durable, and nobody knows.
    assert claims(writer) == (2, 2, 1)
    assert (writer.reply_mark, writer.ship_offset) == ((1, 1) if policy == "always" else (2, 2))
    assert node.sync()
    assert claims(writer) == (2, 2, 2)
    assert writer.durable_offset == 2
    assert not node.sync()


def state(writer: AppendOnlyWriter) -> tuple[bool, bool, int, int]:
    return writer.has_pending, writer.is_changing, writer.written_offset, writer.durable_offset


def test_what_waits_to_be_written_is_known() -> None:
    _, node = new_node()
    writer = node.writer
    assert state(writer) == (False, False, 0, 0)
    node.do_together(("SET", "a", "1"), ("SET", "b", "1"))
    assert state(writer) == (True, False, 0, 0)
    writer.write()
    assert state(writer) == (False, False, 2, 0)
    assert node.sync()
    assert state(writer) == (False, False, 2, 2)
    # A line, and a leap of the numbering.
    writer.note_cursor(UpstreamCursor(UPSTREAM.upstream, 1, 2))
    assert state(writer) == (True, False, 2, 2)
    writer.write()
    assert state(writer) == (False, False, 2, 2)
    node.store.journal.commit(9)
    assert state(writer) == (True, False, 2, 2)
    writer.write()
    assert state(writer) == (False, False, 9, 2)
    # A file that has failed takes nothing.
    writer.close()
    node.do("SET", "c", "1")
    assert state(writer) == (False, False, 9, 2)


def test_writing_waits_while_an_increment_is_changed() -> None:
    _, node = new_node()
    writer = node.writer
    job = writer.begin_increment()
    assert job is not None
    node.do("SET", "a", "1")
    assert not writer.write()
    assert state(writer) == (True, True, 0, 0)
    job.run()
    assert state(writer) == (True, True, 0, 0)
    assert writer.end_increment(job)
    assert state(writer) == (False, False, 1, 0)


def test_a_job_that_never_ran_proves_nothing() -> None:
    _, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    job = node.writer.begin_sync()
    assert job is not None
    node.writer.end_sync(job)
    assert node.writer.durable_mark == 0
    assert node.writer.failed is None
    assert node.sync()


@pytest.mark.parametrize("room", [0, 1, 20, 60])
def test_a_full_disk_ends_the_file(room: int) -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    size = disk.size(INCREMENT)
    disk.fill_up(room)
    node.do("SET", "b", "2")
    assert not node.writer.write()
    assert node.writer.failed is not None
    assert "No space left" in node.writer.failed
    assert INCREMENT in node.writer.failed
    assert claims(node.writer) == (2, 1, 0)
    disk.make_room()
    node.do("SET", "c", "3")
    assert not node.writer.write()
    assert node.writer.begin_sync() is None
    assert claims(node.writer) == (3, 1, 0)
    assert disk.size(INCREMENT) == size + room
    _, loaded = read_folder(disk.kill())
    assert loaded.offset == 1
    # A new base is the way back.
    assert node.rewrite(fresh=True).done
    assert claims(node.writer) == (3, 3, 3)
    node.do("SET", "d", "4")
    assert node.writer.write()
    assert content(read_folder(disk.kill())[0]) == node.content()


def test_a_sync_that_failed_never_happened() -> None:
    disk, node = new_node("always")
    node.do("SET", "a", "1")
    node.writer.write()
    disk.fail_next("sync", errno.EIO)
    assert not node.sync()
    assert node.writer.failed is not None
    assert "Input/output error" in node.writer.failed
    assert claims(node.writer) == (1, 1, 0)
    # The system would say now that all is well.
    assert node.writer.begin_sync() is None
    assert not node.writer.write()
    assert node.rewrite(fresh=True).done
    assert claims(node.writer) == (1, 1, 1)
    for seed in range(20):
        assert content(read_folder(disk.crash(seed))[0]) == node.content()


def test_numbers_that_go_back_without_a_new_base_are_a_failure() -> None:
    disk, node = new_node()
    for _ in range(5):
        node.do("INCR", "a")
    node.writer.write()
    node.store.replace_all(Staging(node.store.epoch), 2)
    node.do("SET", "b", "1")
    assert not node.writer.write()
    assert node.writer.failed is not None
    assert "went back" in node.writer.failed
    assert content(read_folder(disk.kill())[0]) == {b"a": (b"5", None)}


@pytest.mark.parametrize("policy", ["always", "everysec"])
def test_what_replaces_the_data_is_in_use_with_its_base_or_not_at_all(policy: Any) -> None:
    disk, node = new_node(policy)
    for _ in range(5):
        node.do("INCR", "a")
    node.writer.write()
    node.sync()
    before = node.content()
    staging = Staging(node.store.epoch)
    staging.put(b"new", b"value")
    node.store.replace_all(staging, 2)
    node.writer.note_lineage(Lineage(55))

    def check() -> None:
        node.do("INCR", "b")
        node.writer.write()
        _, written, durable = claims(node.writer)
        assert (written, durable) == (5, 5)
        assert node.writer.ship_offset <= 2
        store, loaded = read_folder(disk.kill())
        assert (content(store), loaded.offset) == (before, 5)

    assert node.rewrite(fresh=True, between=check).done
    store, loaded = read_folder(disk.kill())
    assert content(store) == node.content()
    assert loaded.lineage == Lineage(55)
    assert loaded.offset == node.store.journal.offset


def test_while_an_increment_changes_entries_wait() -> None:
    disk, node = new_node()
    node.do("INCR", "a")
    job = node.writer.begin_increment()
    assert job is not None
    node.do("INCR", "a")
    assert not node.writer.write()
    assert node.writer.begin_sync() is None
    assert claims(node.writer) == (2, 1, 0)
    job.run()
    assert node.writer.end_increment(job)
    assert claims(node.writer) == (2, 2, 1)
    assert content(read_folder(disk.kill())[0]) == node.content()


def test_an_old_increment_that_cannot_be_made_durable_is_a_failure() -> None:
    disk, node = new_node()
    node.do("INCR", "a")
    job = node.writer.begin_increment()
    assert job is not None
    disk.fail_next("sync", errno.EIO)
    job.run()
    assert not node.writer.end_increment(job)
    assert "Input/output error" in (node.writer.failed or "")
    assert claims(node.writer) == (1, 1, 0)


@pytest.mark.parametrize("first", ["sync", "change"])
def test_what_a_failed_sync_lost_is_not_made_up_for_by_the_next_one(first: str) -> None:
    """The system says of the bytes that it has dropped, once, and takes them for durable then."""
    disk, node = new_node()
    node.do("INCR", "a")
    node.writer.write()
    sync, job = node.writer.begin_sync(), node.writer.begin_increment()
    assert sync is not None
    assert job is not None
    disk.fail_next("sync", errno.EIO)
    sync.run()
    job.run()
    if first == "sync":
        node.writer.end_sync(sync)
    assert not node.writer.end_increment(job)
    if first == "change":
        node.writer.end_sync(sync)
    assert "Input/output error" in (node.writer.failed or "")
    assert claims(node.writer) == (1, 1, 0)
    assert node.rewrite(fresh=True).done
    assert claims(node.writer) == (1, 1, 1)
    for seed in range(20):
        assert content(read_folder(disk.crash(seed))[0]) == node.content()


def test_a_new_increment_is_no_way_out_of_a_failure_that_came_meanwhile() -> None:
    disk, node = new_node()
    for _ in range(5):
        node.do("INCR", "a")
    node.writer.write()
    job = node.writer.begin_increment()
    assert job is not None
    node.store.replace_all(Staging(node.store.epoch), 2)
    node.do("SET", "b", "1")
    job.run()
    assert not node.writer.end_increment(job)
    assert "went back" in (node.writer.failed or "")
    assert not node.writer.write()
    assert node.writer.begin_sync() is None
    assert node.rewrite(fresh=True).done
    assert content(read_folder(disk.kill())[0]) == node.content() == {b"b": (b"1", None)}
    assert len(disk.open_files()) == 1


@pytest.mark.parametrize("method", ["create", "write"])
def test_an_increment_that_cannot_be_made_leaves_the_old_one(method: str) -> None:
    disk, node = new_node()
    node.do("INCR", "a")
    job = node.writer.begin_increment()
    assert job is not None
    disk.fail_next(method, errno.ENOSPC)
    node.do("INCR", "a")
    job.run()
    assert not node.writer.end_increment(job)
    assert node.writer.failed is None
    assert claims(node.writer)[:2] == (2, 2)
    assert disk.list(FOLDER) == ["appendonly.aof.1.incr.aof", "appendonly.aof.manifest"]
    assert content(read_folder(disk.kill())[0]) == node.content()


def test_a_closed_writer_observes_nothing() -> None:
    disk, node = new_node()
    node.writer.close()
    node.do("INCR", "a")
    assert not node.writer.write()
    assert node.writer.mark == 0
    assert node.writer.size == 0
    node.folder.close()
    assert Node(disk, history=2).start()
