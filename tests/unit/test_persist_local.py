"""Data that hold writes made beside the stream they are a copy of: the files say so, through restarts and rewrites."""

from __future__ import annotations

from typing import Any

import pytest
from support.append_only import FOLDER, Node, new_node, read_folder
from support.memory_disk import MemoryDisk

from kevynode.persist.record_reader import Entries
from kevynode.persist.rewriting import Rewrite
from kevynode.replicate.lineage import Lineage
from kevynode.store.journal import Origin
from kevynode.store.staging import Staging

FIRST = FOLDER + "/appendonly.aof.1.incr.aof"


def is_local(disk: MemoryDisk) -> bool:
    """What is found by a node that starts on this disk."""
    return read_folder(disk)[1].local


def copy_of_a_stream() -> tuple[MemoryDisk, Node]:
    """A node that has taken an entry of another one's stream."""
    disk, node = new_node()
    journal = node.store.journal
    journal.follows = True
    from_stream(node, "first")
    node.writer.write()
    return disk, node


def from_stream(node: Node, key: str) -> None:
    """An entry that came with its number."""
    journal = node.store.journal
    node.store.put(key.encode(), b"1")
    node.store.emit((b"SET", key.encode(), b"1"), key.encode())
    journal.commit(journal.offset + 1)


def restarted(disk: MemoryDisk, history: int) -> tuple[MemoryDisk, Node]:
    """The next process on the disk, which follows again."""
    disk = disk.kill()
    node = Node(disk, history=history)
    node.store.journal.follows = True
    assert node.start()
    return disk, node


def test_a_write_beside_the_stream_is_told_together_with_it() -> None:
    disk, node = copy_of_a_stream()
    assert not is_local(disk.kill())
    node.do("SET", "own", "1")
    from_stream(node, "second")
    node.do("SET", "own", "2")
    node.writer.write()
    assert disk.content(FIRST).count(b"#kevynode:local yes\r\n") == 1
    seen: list[Any] = []

    def on_entries(entries: Entries, origin: Origin | None) -> None:
        seen.append((entries.first, entries.next, len(entries.commands), entries.grouped))

    _, loaded = read_folder(disk.kill(), on_entries=on_entries)
    assert (loaded.local, loaded.offset) == (True, 2)
    # What was written beside has no offset, and can be told by that.
    assert seen == [(0, 1, 1, False), (1, 1, 1, True), (1, 2, 1, False), (2, 2, 1, True)]


def test_a_primary_is_never_local() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    assert node.rewrite().done
    assert not is_local(disk.kill())
    assert b"local" not in b"".join(disk.content(f"{FOLDER}/{name}") for name in disk.list(FOLDER))


@pytest.mark.parametrize("fresh", [False, True])
def test_it_survives_rewrites_and_restarts(fresh: bool) -> None:
    disk, node = copy_of_a_stream()
    node.do("SET", "own", "1")
    node.writer.write()
    for history in range(2, 5):
        assert node.rewrite(fresh=fresh).done
        assert is_local(disk.kill())
        disk, node = restarted(disk, history)
        assert is_local(disk.kill())
        # A rewrite before anything else is written: the base alone says it.
        assert node.rewrite(fresh=fresh).done
        assert is_local(disk.kill())


def test_it_becomes_so_while_a_rewrite_runs() -> None:
    disk, node = copy_of_a_stream()
    rewrite = Rewrite(node.writer, node.store)
    node.do("SET", "own", "1")
    for job in rewrite.steps():
        if job is not None:
            job.run()
        node.writer.write()
    rewrite.close()
    assert rewrite.done
    assert is_local(disk.kill())
    # The base was made of data without it.
    base = next(name for name in disk.list(FOLDER) if "base" in name)
    assert b"local" not in disk.content(f"{FOLDER}/{base}")


def test_all_data_replaced_is_the_end_of_it() -> None:
    disk, node = copy_of_a_stream()
    node.do("SET", "own", "1")
    node.writer.write()
    staging = Staging(node.store.epoch)
    staging.put(b"copied", b"1")
    node.store.replace_all(staging, 70)
    node.store.journal.outside = False
    node.writer.note_lineage(Lineage(99))
    rewrite = Rewrite(node.writer, node.store, fresh=True)
    assert is_local(disk.kill())
    for job in rewrite.steps():
        if job is not None:
            job.run()
    rewrite.close()
    assert rewrite.done
    found = read_folder(disk.kill())[1]
    assert (found.local, found.offset, found.lineage) == (False, 70, Lineage(99))


@pytest.mark.parametrize("entry", [False, True])
def test_a_promotion_is_the_end_of_it(entry: bool) -> None:
    disk, node = copy_of_a_stream()
    node.do("SET", "own", "1")
    node.writer.write()
    journal = node.store.journal
    journal.follows = journal.outside = False
    node.writer.note_lineage(Lineage(99))
    if entry:
        node.do("SET", "own", "2")
    node.writer.write()
    found = read_folder(disk.kill())[1]
    assert (found.local, found.offset, found.lineage) == (False, 1 + entry, Lineage(99))
    assert node.rewrite().done
    assert not is_local(disk.kill())


def test_a_promotion_at_the_start_is_the_end_of_it() -> None:
    disk, node = copy_of_a_stream()
    node.do("SET", "own", "1")
    node.writer.write()
    disk = disk.kill()
    node = Node(disk, history=2)
    assert node.loaded.local
    node.store.journal.outside = False
    assert node.start()
    assert not is_local(disk.kill())
    node.do("SET", "own", "2")
    node.writer.write()
    assert not is_local(disk.kill())
