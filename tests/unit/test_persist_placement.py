"""Entries that were written before they were made: their placement comes into use with them, or not at all."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from typing import Any

import pytest
from support.append_only import DATA, FOLDER, Node, new_node, read_folder
from support.memory_disk import Call, MemoryDisk
from support.store_harness import content, find_command

from kevynode.persist.annotations import PLACEMENT, FileHeader, Position, UpstreamCursor
from kevynode.persist.digests import CheckedReader
from kevynode.persist.folder import LogFile
from kevynode.persist.loader import LoadError, check, fix
from kevynode.persist.record_reader import Damaged, Entries, RecordReader, Torn
from kevynode.persist.records import encode_commands
from kevynode.replicate.lineage import Lineage

COMMANDS: list[Sequence[bytes]] = [
    (b"DEL", b"gone"),
    (b"SET", b"a:1", b"one"),
    (b"RPUSH", b"a:2", b"x", b"y"),
    (b"SET", b"a:3", b"v" * 9000),
]
PLACED = FOLDER + "/appendonly.aof.2.incr.aof"


class Refused(Exception):
    """The writer could not use the placement now."""


def placed(node: Node, commands: list[Sequence[bytes]] = COMMANDS) -> LogFile:
    """A placement that holds these, complete and durable."""
    placement = node.folder.create_placement()
    for command in commands:
        placement.write(encode_commands([command]))
    placement.end(len(commands))
    placement.sync()
    return placement


def make(node: Node, commands: list[Sequence[bytes]] = COMMANDS) -> None:
    """What the placement holds, as one group."""
    for argv in commands:
        find_command(list(argv)).handler(node.store, list(argv))
    node.store.commit()


def use(node: Node, placement: LogFile) -> bool:
    """Have it come into use; whether the file is as good as ever. Raises Refused."""
    job = node.writer.begin_placement_use(placement, len(COMMANDS), lambda: make(node))
    if job is None:
        raise Refused
    assert node.writer.is_changing
    node.do("SET", "meanwhile", "1")
    assert not node.writer.write()
    job.run()
    return node.writer.end_increment(job)


def prepared() -> tuple[MemoryDisk, Node]:
    disk, node = new_node()
    node.do("SET", "gone", "v")
    node.do("SET", "other", "v")
    return disk, node


def test_what_was_placed_is_loaded_at_its_place() -> None:
    disk, node = prepared()
    node.writer.note_cursor(UpstreamCursor("up:1", 7, 30))
    placement = placed(node)
    node.do("SET", "other", "w")
    assert use(node, placement)
    node.do("SET", "a:1", "later")
    assert node.writer.write()
    assert [file.sequence for file in node.folder.manifest.increments] == [1, 2, 3]
    assert disk.content(PLACED).startswith(FileHeader(PLACEMENT, 2).line())
    seen: list[tuple[int, int]] = []
    store, loaded = read_folder(disk.kill(), on_entries=lambda entries, _: seen.append((entries.first, entries.next)))
    assert content(store) == node.content()
    assert store.keyspace.get(b"a:1") == b"later"
    assert loaded.offset == node.store.journal.offset == 3 + len(COMMANDS) + 2
    assert loaded.cursors == {"up:1": (7, 30)}
    # The entries have the offsets that the journal gave them, without a gap.
    assert [first for first, _ in seen][1:] == [following for _, following in seen][:-1]
    assert seen[0][0] == 0


def test_a_power_cut_at_any_call_leaves_the_old_data_or_the_new() -> None:
    outcomes = set()
    for policy_crash in (False, True):
        for seed in range(3):
            disk, node = prepared()
            node.writer.write()
            node.sync()
            placement = placed(node)
            old = node.content()
            disk.seed = seed
            left: list[MemoryDisk] = []

            def look(_: Call, disk: MemoryDisk = disk, left: list[MemoryDisk] = left, cut: bool = policy_crash) -> None:
                disk.before = None
                left.append(disk.crash() if cut else disk.kill())
                disk.before = look

            disk.before = look
            assert use(node, placement)
            disk.before = None
            assert len(left) >= 8
            new = node.content()
            del new[b"meanwhile"]
            for found in left:
                store, loaded = read_folder(found)
                held = content(store)
                held.pop(b"meanwhile", None)
                assert held in (old, new), f"seed {seed}"
                assert loaded.offset >= 2 + (len(COMMANDS) if held == new else 0)
                outcomes.add(held == new)
                # A node goes on from there, and leaves nothing of the other one.
                again = Node(found, history=2)
                assert again.start()
                again.folder.sweep()
                named = {file.name for file in again.folder.manifest.files}
                assert {name for name in found.list(FOLDER) if "manifest" not in name} == named
    assert outcomes == {False, True}


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("method", ["write", "sync", "rename", "create", "sync_folder"])
def test_a_failure_at_any_call_is_one_of_the_file(method: str, number: int) -> None:
    disk, node = prepared()
    placement = placed(node)
    calls = 0

    def fail(call: Call) -> None:
        nonlocal calls
        if call.method == method:
            calls += 1
            if calls > number:
                raise OSError(errno.EIO, "I/O error", call.path)

    disk.before = fail
    try:
        worked = use(node, placement) and node.writer.failed is None
    except Refused:
        worked = False
    disk.before = None
    if worked:
        assert calls <= number
        return
    assert node.writer.failed
    # What is in memory alone is in a base before it is promised.
    assert node.rewrite(fresh=True).done
    store, _ = read_folder(disk.kill())
    assert content(store) == node.content()


def test_another_number_of_entries_than_was_placed_is_a_failure() -> None:
    _, node = prepared()
    placement = placed(node)
    with pytest.raises(RuntimeError, match="4 entries were placed, 1 were made"):
        node.writer.begin_placement_use(placement, len(COMMANDS), lambda: node.do("SET", "a:1", "one"))
    assert node.writer.failed
    assert node.rewrite(fresh=True).done


def test_a_placement_behind_which_a_file_was_begun_is_of_no_use() -> None:
    disk, node = prepared()
    placement = placed(node)
    assert node.rewrite().done
    with pytest.raises(Refused):
        use(node, placement)
    assert node.writer.failed is None
    node.folder.discard(placement)
    assert not [name for name in disk.list(FOLDER) if name.startswith("stage-")]
    placement = placed(node)
    node.rewrite(fresh=True, between=lambda: None)
    with pytest.raises(Refused):
        use(node, placement)


def test_a_placement_outlives_the_sweep_of_a_rewrite() -> None:
    disk, node = prepared()
    left = placed(node)
    placement = placed(node)
    node.folder.sweep()
    assert not disk.exists(left.path)
    assert use(node, placement)
    store, _ = read_folder(disk.kill())
    assert content(store) | {b"meanwhile": content(node.store)[b"meanwhile"]} == node.content()


def test_a_rewrite_folds_a_placement_in() -> None:
    disk, node = prepared()
    assert use(node, placed(node))
    node.do("SET", "a:1", "w")
    assert node.rewrite(between=lambda: node.do("INCR", "count")).done
    assert not disk.exists(PLACED)
    node.writer.write()
    store, _ = read_folder(disk.kill())
    assert content(store) == node.content()


# -- what is wrong with one --------------------------------------------------------------------------------------------


def with_placement(change: Any) -> MemoryDisk:
    """A disk with a placement in use, of which ``change`` makes other bytes."""
    disk, node = prepared()
    assert use(node, placed(node))
    found = disk.kill()
    data = change(disk.content(PLACED))
    file = found.create(PLACED)
    file.write(data)
    file.sync()
    file.close()
    return found


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1], "ends in an unfinished record"),
        (lambda data: data[: data.rindex(b"#kevynode:end")], "ends in an unfinished record"),
        (lambda data: data.replace(b"one", b"two"), "does not match its digest"),
        (lambda data: data.replace(b"commands=4", b"commands=5"), "5 commands are announced, 4 are there"),
        (lambda data: data.replace(b"seq=2", b"seq=4", 1), "does not match its digest"),
        (lambda data: FileHeader(PLACEMENT, 2).line() + Position(Lineage(1), 9, 2).line(), "are numbered one by one"),
    ],
)
def test_a_placement_that_is_not_as_it_was_written_is_refused(change: Any, reason: str) -> None:
    found = with_placement(change)
    with pytest.raises(LoadError, match=reason) as caught:
        read_folder(found)
    assert caught.value.path == PLACED
    reports = check(found, DATA)
    assert [report.error is None for report in reports] == [True, False, True]
    assert not reports[1].can_be_fixed


def test_a_placement_is_checked_like_any_other_file() -> None:
    disk, node = prepared()
    assert use(node, placed(node))
    node.writer.write()
    reports = check(disk.kill(), DATA)
    assert [report.error for report in reports] == [None, None, None]
    assert [report.commands for report in reports] == [2, len(COMMANDS), 1]
    node.writer.close()
    assert fix(node.folder) is None


def test_a_placement_goes_on_from_the_file_before_and_needs_one() -> None:
    data = FileHeader(PLACEMENT, 2).line() + encode_commands(COMMANDS[:2])
    lineage = Lineage(5)
    reader = RecordReader(behind=Position(lineage, 40))
    (_, entries) = reader.feed(data)
    assert isinstance(entries, Entries)
    assert (entries.first, entries.next) == (40, 42)
    assert (reader.lineage, reader.offset) == (lineage, 42)
    # It is not whole before it says so.
    assert reader.finish() == Torn(len(data))
    alone = RecordReader()
    alone.feed(data)
    assert (alone.lineage, alone.offset) == (None, 2)
    disk, node = prepared()
    assert use(node, placed(node))
    name = FOLDER + "/appendonly.aof.manifest"
    text = disk.content(name)
    file = disk.create(name)
    file.write(text[text.index(b"\n") + 1 :])
    file.close()
    with pytest.raises(LoadError, match="goes on where the file before ends, and there is none"):
        read_folder(disk.kill())


def test_nobody_reads_what_no_digest_vouches_for_in_a_placement() -> None:
    disk, node = prepared()
    placement = placed(node)
    data = disk.content(placement.path)
    chance = random.Random(3)
    for _ in range(50):
        place = chance.randrange(len(data))
        wrong = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
        reader = CheckedReader(RecordReader(behind=Position(Lineage(1), 0)))
        reader.feed(wrong)
        assert isinstance(reader.finish(), Torn | Damaged), place
