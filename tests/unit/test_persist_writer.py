"""The writer of the append-only file: what it puts there for which journal, and what a crash leaves of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.append_only import INCREMENT, Node, new_node, read_folder
from support.memory_disk import MemoryDisk
from support.store_harness import check_memory, content
from unit.test_journal_replay import Workload

from kevynode.persist.annotations import UpstreamCursor
from kevynode.persist.loader import LoadError
from kevynode.persist.record_reader import Entries
from kevynode.persist.writer import AppendOnlyWriter
from kevynode.replicate.lineage import Lineage
from kevynode.store.apply import Applier
from kevynode.store.journal import Origin

UPSTREAM = Origin("10.0.0.1:7001", 77)


def lines(disk: MemoryDisk, path: str = INCREMENT) -> list[str]:
    """The file but for its first two lines, without digests and lengths."""
    text = disk.content(path).decode().split("\r\n")[2:-1]
    return [line for line in text if line[:1] not in "*$" and not line.startswith("#kevynode:digest ")]


def apply_all(node: Node, next_offset: int | None, *commands: str) -> None:
    """What a follower does with entries that belong together."""
    Applier(node.store).apply_all([command.encode().split() for command in commands])
    node.store.settle()
    node.store.journal.commit(next_offset)


# -- what is written --------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_write_and_one_call_writes_all() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.do_together(("SET", "b", "2"), ("INCR", "a"))
    node.do("DEL", "b")
    before = len(disk.calls)
    assert lines(disk) == []
    assert node.writer.write()
    assert [call.method for call in disk.calls[before:]] == ["write"]
    assert lines(disk) == "SET a 1 MULTI SET b 2 INCR a EXEC DEL b".split()
    assert node.writer.write()
    assert len(disk.calls) == before + 1


def test_much_is_written_in_pieces() -> None:
    disk, node = new_node()
    for number in range(2500):
        node.do("SET", f"key{number}", "value")
    assert node.writer.write()
    assert node.writer.written_mark == node.writer.mark == 2500
    assert disk.content(INCREMENT).count(b"#kevynode:digest ") == 4
    store, loaded = read_folder(disk.kill())
    assert content(store) == node.content()
    assert loaded.offset == 2500


def test_short_writes_are_gone_on_with() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    for size in (1, 7, 20):
        disk.shorten_next(size)
    assert node.writer.write()
    store, loaded = read_folder(disk.kill())
    assert content(store) == node.content()
    assert loaded.cut is None


def test_entries_keep_the_numbers_that_they_came_with() -> None:
    disk, node = new_node()
    journal = node.store.journal
    journal.follows = True
    apply_all(node, 1, "SET a 1")
    # Nothing came of some entries before this one, and two changes of this one.
    apply_all(node, 10, "SET b 1")
    apply_all(node, 11, "SET c 1", "SET d 1")
    node.do("SET", "beside", "1")
    apply_all(node, 12, "INCR a")
    journal.commit(20)
    assert node.writer.write()
    text = lines(disk)
    assert "#kevynode:group next=10" in text
    assert "#kevynode:group next=11" in text
    assert text[-1].startswith("#kevynode:position history=1 offset=20 ")
    seen: list[Entries] = []
    store, loaded = read_folder(disk.kill(), on_entries=lambda entries, origin: seen.append(entries))
    assert content(store) == node.content()
    assert loaded.offset == journal.offset == 20
    assert [(entries.first, entries.next) for entries in seen] == [(0, 1), (1, 10), (10, 11), (11, 11), (11, 12)]


def test_a_new_history_is_told_where_it_begins() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    lineage = node.writer.lineage.branch(9, 1)
    node.writer.note_lineage(lineage)
    node.writer.note_lineage(lineage)
    node.do("SET", "b", "1")
    node.writer.write()
    assert lines(disk)[3] == "#kevynode:position history=9 offset=1 lineage=1@1 after=1"
    _, loaded = read_folder(disk.kill())
    assert (loaded.lineage, loaded.offset) == (lineage, 2)


def test_origins_are_told_when_they_change() -> None:
    disk, node = new_node()
    journal = node.store.journal
    other = Origin("10.0.0.2:7001", 5)
    for origin in (None, UPSTREAM, UPSTREAM, other, None):
        journal.origin = origin
        apply_all(node, None, "INCR a")
    node.writer.write()
    told = [line for line in lines(disk) if line.startswith("#kevynode:origin")]
    assert told == [
        "#kevynode:origin upstream=10.0.0.1:7001 history=77",
        "#kevynode:origin upstream=10.0.0.2:7001 history=5",
        "#kevynode:origin own",
    ]
    seen: list[Any] = []
    read_folder(disk.kill(), on_entries=lambda entries, origin: seen.append((origin, entries.first, entries.next)))
    assert seen == [(None, 0, 1), (UPSTREAM, 1, 3), (other, 3, 4), (None, 4, 5)]


def test_cursors_count_the_entries_of_their_upstream() -> None:
    disk, node = new_node()
    journal = node.store.journal
    writer = node.writer
    writer.note_cursor(UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, 100))

    def entry(cursor: int | None, *commands: str) -> None:
        journal.origin = UPSTREAM
        if cursor is not None:
            writer.next_cursor = UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, cursor)
        apply_all(node, None, *commands)
        journal.origin = None
        writer.write()
        assert read_folder(disk.kill())[1].cursors == writer.cursors == {UPSTREAM.upstream: (77, expected)}

    expected = 101
    entry(101, "INCR a")
    expected = 102
    entry(None, "INCR a")
    size = len(lines(disk))
    expected = 103
    entry(103, "INCR a")
    # It says nothing that is not known already.
    assert not [line for line in lines(disk)[size:] if "cursor" in line]
    node.do("INCR", "own")
    # Two changes of one entry, entries without a change, and both.
    expected = 104
    entry(104, "INCR a", "INCR b")
    expected = 110
    entry(110, "INCR a")
    expected = 120
    entry(120, "INCR a", "INCR b")
    # Each file begins with them.
    assert node.rewrite().done
    writer.write()
    assert read_folder(disk.kill())[1].cursors == {UPSTREAM.upstream: (77, 120)}
    expected = 121
    entry(121, "INCR a")


def test_what_counts_for_a_cursor() -> None:
    disk, node = new_node()
    journal = node.store.journal
    writer = node.writer
    journal.origin = UPSTREAM
    apply_all(node, None, "INCR a")
    writer.write()
    assert read_folder(disk.kill())[1].cursors == writer.cursors == {}
    # It begins to be tracked in the midst of its entries.
    writer.next_cursor = UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, 50)
    apply_all(node, None, "INCR a")
    expected = {UPSTREAM.upstream: (UPSTREAM.history, 50)}
    writer.write()
    assert read_folder(disk.kill())[1].cursors == writer.cursors == expected
    # Entries of another history of it do not count, nor do our own, in this file or the next.
    journal.origin = Origin(UPSTREAM.upstream, 5)
    apply_all(node, None, "INCR a")
    writer.write()
    assert read_folder(disk.kill())[1].cursors == writer.cursors == expected
    journal.origin = UPSTREAM
    apply_all(node, None, "INCR a")
    writer.write()
    expected = {UPSTREAM.upstream: (UPSTREAM.history, 51)}
    disk = disk.kill()
    node = Node(disk, history=2)
    assert node.writer.cursors == expected
    assert node.start()
    node.do("INCR", "a")
    node.writer.write()
    assert read_folder(disk.kill())[1].cursors == expected


def test_a_cursor_that_is_forgotten_is_in_no_later_file() -> None:
    disk, node = new_node()
    node.writer.note_cursor(UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, 50))
    node.writer.note_cursor(UpstreamCursor("10.0.0.2:7001", 5, 60))
    node.writer.write()
    del node.writer.cursors[UPSTREAM.upstream]
    job = node.writer.begin_increment()
    assert job is not None
    job.run()
    assert node.writer.end_increment(job)
    assert read_folder(disk.kill())[1].cursors == {"10.0.0.2:7001": (5, 60)}


def test_a_new_history_without_an_entry_is_made_durable() -> None:
    disk, node = new_node()
    lineage = node.writer.lineage.branch(9, 0)
    node.writer.note_lineage(lineage)
    node.writer.write()
    assert node.sync()
    assert not node.sync()
    for seed in range(5):
        assert read_folder(disk.crash(seed))[1].lineage == lineage


def test_a_cursor_is_never_ahead_of_its_entries_wherever_the_file_ends() -> None:
    disk, node = new_node()
    node.writer.note_cursor(UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, 0))
    counts = {0: 0}
    done = 0
    for number, changes in enumerate((1, 2, 0, 1, 3, 0, 0, 2, 1), 1):
        node.store.journal.origin = UPSTREAM
        node.writer.next_cursor = UpstreamCursor(UPSTREAM.upstream, UPSTREAM.history, number)
        if changes:
            apply_all(node, None, *["INCR a"] * changes)
        done += changes
        counts[number] = done
        node.writer.write()
    data = disk.content(INCREMENT)
    seen = set()
    refused: list[int | None] = []
    for size in range(len(data) + 1):
        found = disk.kill()
        found.truncate(INCREMENT, size)
        try:
            store, loaded = read_folder(found)
        except LoadError as error:
            # The first lines are gone.
            refused.append(error.offset)
            continue
        held = int(content(store).get(b"a", (b"0", None))[0])
        cursor = loaded.cursors.get(UPSTREAM.upstream, (0, 0))[1]
        assert counts[cursor] == held
        seen.add(cursor)
    assert seen >= {1, 2, 4, 5, 8, 9}
    assert 0 < len(refused) < 200


# -- random work ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_work_of_clients_is_there_after_a_crash(seed: int) -> None:
    work = Workload(seed)
    disk = MemoryDisk(seed=seed)
    node = Node(disk, history=seed + 1)
    store = node.store = work.node.store
    writer = AppendOnlyWriter(node.folder, store.journal, Lineage(seed + 1, ((999, 0),)), policy="always")
    node.writer.close()
    node.writer = writer
    assert node.start()
    draw = random.Random(seed)
    durable: Any = {}
    offset = 0
    for _ in range(400):
        work.step()
        match draw.randrange(12):
            case 0:
                assert writer.write()
                node.sync()
                durable, offset = content(store), store.journal.offset
                assert writer.durable_offset == offset
            case 1:
                assert writer.write()
            case 2 if draw.randrange(3) == 0:
                assert node.rewrite(fresh=draw.randrange(2) == 0, between=writer.write).done
    assert writer.write()
    found, loaded = read_folder(disk.kill())
    check_memory(found)
    assert content(found) == content(store)
    assert loaded.offset == store.journal.offset
    assert loaded.lineage == writer.lineage
    if writer.durable_offset == offset:
        crashed, loaded = read_folder(disk.crash(seed))
        assert loaded.offset >= offset
        if loaded.offset == offset:
            assert content(crashed) == durable
