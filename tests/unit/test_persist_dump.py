"""Dumps: written beside, put in place in one step, found again as they were, and refused where they are not."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from typing import Any, Final
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.append_only import DATA, Node, new_node
from support.memory_disk import Call, MemoryDisk
from support.store_harness import check_memory, content

from kevynode.persist.dump import DUMP, Dump, DumpError, LoadedDump, load_dump, sweep_dumps
from kevynode.replicate.lineage import Lineage
from kevynode.replicate.snapshot import SnapshotDecoder, encode_snapshot
from kevynode.store.apply import Applier
from kevynode.store.staging import Staging
from kevynode.store.store import Store

PATH: Final = f"{DATA}/{DUMP}"
LINEAGE: Final = Lineage(7, ((5, 3), (4, 1)))
CURSORS: Final = {"10.0.0.1:7001": (77, 120), "h:2": (2**64 - 1, 0)}
NOW: Final = 1_700_000_000_000


def put(disk: MemoryDisk, data: bytes, path: str = PATH) -> None:
    """Make a file hold these bytes, durably."""
    file = disk.create(path)
    file.write(data)
    file.sync()
    file.close()
    disk.sync_folder(DATA)


def loaded(disk: MemoryDisk, on_progress: Callable[[int, int, int], None] | None = None) -> tuple[Store, LoadedDump]:
    """What a node finds that starts on this disk."""
    store = Store(random.Random(1))
    facts: list[LoadedDump | None] = []

    def steps() -> Iterator[None]:
        facts.append((yield from load_dump(disk, DATA, store, NOW, on_progress)))

    for _ in steps():
        pass
    (found,) = facts
    assert found is not None
    return store, found


def small_node() -> tuple[MemoryDisk, Node]:
    """A node with a little of every type."""
    disk, node = new_node()
    node.do("SET", "string", "v\r\n\0")
    node.do("PEXPIREAT", "string", str(node.store.now + 5000))
    node.do("HSET", "hash", "f", "1", "g", "2")
    node.do("HPEXPIREAT", "hash", str(node.store.now + 7000), "FIELDS", "1", "g")
    node.do("RPUSH", "list", "a", "b")
    node.do("SADD", "set", "a", "b")
    node.do("ZADD", "zset", "1.5", "a", "-inf", "b")
    applier = Applier(node.store)
    for line in (b"XADD stream 5-1 f v", b"XGROUP CREATE stream g 0-0", b"XGROUP CREATECONSUMER stream g c"):
        applier.apply(line.split())
    node.store.commit()
    return disk, node


def dump_of(disk: MemoryDisk, node: Node, *, local: bool = False) -> Dump:
    return Dump(disk, DATA, node.store, LINEAGE, CURSORS, local=local)


@pytest.mark.parametrize("local", [False, True])
def test_a_dump_is_read_back_with_its_facts(local: bool) -> None:
    disk, node = small_node()
    dump = dump_of(disk, node, local=local)
    assert dump.run_all()
    assert (dump.failed, dump.done, dump.keys, dump.size) == (None, True, 6, disk.size(PATH))
    assert dump.cursor == (7, node.store.journal.offset)
    for found in (disk.kill(), *map(disk.crash, range(10))):
        progress: list[tuple[int, int, int]] = []
        store, facts = loaded(found, lambda *step, progress=progress: progress.append(step))
        check_memory(store)
        assert content(store) == node.content()
        assert facts == LoadedDump(LINEAGE, node.store.journal.offset, CURSORS, local, 6, dump.size, True)
        assert facts.cursor == dump.cursor
        assert progress[-1][1:] == (dump.size, 6)
        assert (store.journal.offset, store.journal.pending, store.touched) == (0, [], {})
        assert list(store.field_deadline_keys) == [b"hash"]


def test_taking_over_is_no_change_that_anybody_hears_of() -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    store = Store(random.Random(1))
    heard: list[Any] = []
    store.journal.observers.append(lambda first, group: heard.append(group))
    store.journal.offset = 9
    for _ in load_dump(disk, DATA, store, NOW):
        assert len(store.keyspace) == 0
    assert (len(store.keyspace), heard, store.journal.offset) == (6, [], 9)
    store.emit((b"DEL", b"set"), b"set")
    with pytest.raises(RuntimeError, match="between two groups"):
        store.take_over(Staging())


def test_what_has_expired_is_loaded_and_left_to_be_swept() -> None:
    disk, node = new_node()
    node.do("SET", "gone", "v")
    node.do("PEXPIREAT", "gone", str(node.store.now + 1))
    node.store.now += 10
    assert dump_of(disk, node).run_all()
    store, facts = loaded(disk)
    assert facts.keys == 1
    assert content(store) == node.content()
    store.now = node.store.now
    assert store.lookup(b"gone") is None
    assert [effect[0] for effect in store.journal.pending] == [(b"DEL", b"gone")]


def test_the_data_are_those_of_the_moment_in_which_it_was_begun() -> None:
    disk, node = new_node()
    for first in range(0, 3000, 500):
        node.do_together(*[("SET", f"key{number}", "v" * 50) for number in range(first, first + 500)])
    node.do("RPUSH", "list", *"abc")
    before = node.content()
    dump = dump_of(disk, node)
    steps = 0
    for number, job in enumerate(dump.steps()):
        steps += 1
        node.do("APPEND", f"key{number}", "!")
        node.do("DEL", f"key{number + 1000}")
        node.do("RPUSH", "list", "d")
        if job is not None:
            job.run()
    dump.close()
    assert steps > 5
    assert node.content() != before
    store, facts = loaded(disk.kill())
    assert content(store) == before
    assert facts.offset == dump.cursor[1] < node.store.journal.offset


def test_a_dump_is_a_snapshot_for_others() -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    data = disk.content(PATH)
    whole = SnapshotDecoder(Staging())
    whole.feed(data)
    dripped = SnapshotDecoder(Staging())
    for byte in data:
        dripped.feed(bytes((byte,)))
    for decoder in (whole, dripped):
        decoder.finish()
        assert (decoder.version, decoder.cursor) == (6, (7, node.store.journal.offset))
        store = Store(random.Random(1))
        store.take_over(decoder.staging)
        assert content(store) == node.content()
    # Only where it is needed.
    node.do("DEL", "hash")
    node.store.field_deadline_keys.clear()
    assert dump_of(disk, node).run_all()
    assert disk.content(PATH)[8] == 5


def test_readers_that_know_no_lines_hear_of_no_position_of_local_data() -> None:
    disk, node = small_node()
    assert dump_of(disk, node, local=True).run_all()
    decoder = SnapshotDecoder(Staging())
    decoder.feed(disk.content(PATH))
    assert decoder.cursor == (0, 0)


@pytest.mark.parametrize(
    ("version", "cursor", "lineage", "offset"),
    [
        (4, (0, 0), None, 0),
        (5, (0, 0), None, 0),
        (5, (9, 12), Lineage(9), 12),
        (6, (9, 12), Lineage(9), 12),
        # Neither a history nor an offset of ours.
        (5, (2**60, 12), None, 0),
        (5, (9, 2**63), None, 0),
    ],
)
def test_a_dump_of_a_kevy_server_ends_with_its_snapshot(
    version: int, cursor: tuple[int, int], lineage: Lineage | None, offset: int
) -> None:
    disk, node = small_node()
    node.do("HPERSIST", "hash", "FIELDS", "1", "g")
    put(disk, b"".join(encode_snapshot(node.store.freeze(), version=version, cursor=cursor)))
    store, facts = loaded(disk)
    assert content(store) == node.content()
    assert facts == LoadedDump(lineage, offset, {}, False, 6, disk.size(PATH), False)
    assert facts.cursor == (cursor if lineage else (0, 0))


def refused(disk: MemoryDisk) -> DumpError:
    """The error of a load, which leaves the store as it was."""
    store = Store(random.Random(1))
    store.put(b"before", b"1")
    with pytest.raises(DumpError) as caught:
        for _ in load_dump(disk, DATA, store, NOW):
            pass
    assert content(store) == {b"before": (b"1", None)}
    assert caught.value.path == PATH
    assert str(caught.value) == f"{PATH} {caught.value.reason}"
    return caught.value


def test_no_dump_is_no_error() -> None:
    store = Store(random.Random(1))
    with pytest.raises(StopIteration) as stop:
        next(load_dump(MemoryDisk(), DATA, store, NOW))
    assert stop.value.value is None


def outcome(data: bytes) -> tuple[Any, LoadedDump] | DumpError:
    """What comes of loading a file that holds this."""
    disk = MemoryDisk()
    put(disk, data)
    try:
        store, facts = loaded(disk)
    except DumpError as error:
        return error
    check_memory(store)
    return content(store), facts


def test_every_truncation_is_refused_or_loads_the_same_data() -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    data = disk.content(PATH)
    end = data.index(b"#kevynode:position")
    for size in range(len(data)):
        found = outcome(data[:size])
        if size == end:
            # As a kevy server writes it.
            assert not isinstance(found, DumpError)
            assert found[0] == node.content()
            assert (found[1].is_checked, found[1].cursor) == (False, (7, node.store.journal.offset))
        else:
            assert isinstance(found, DumpError), size


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80, 0xFF])
def test_every_byte_flip_is_refused(change: int) -> None:
    disk, node = small_node()
    assert dump_of(disk, node, local=True).run_all()
    data = bytearray(disk.content(PATH))
    for place in range(len(data)):
        data[place] ^= change
        assert isinstance(outcome(bytes(data)), DumpError), place
        data[place] ^= change


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_byte_flip_without_a_checksum_is_refused_or_loads_something_whole(change: int) -> None:
    _, node = small_node()
    data = bytearray(b"".join(encode_snapshot(node.store.freeze(), version=6, cursor=(7, 3))))
    refusals = 0
    for place in range(len(data)):
        data[place] ^= change
        refusals += isinstance(outcome(bytes(data)), DumpError)
        data[place] ^= change
    assert refusals > len(data) // 4


@settings(max_examples=60)
@given(st.binary(max_size=40), st.data())
def test_bytes_put_in_are_refused(more: bytes, data: st.DataObject) -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    whole = disk.content(PATH)
    place = data.draw(st.integers(0, len(whole)))
    changed = whole[:place] + more + whole[place:]
    if changed != whole:
        assert isinstance(outcome(changed), DumpError)


def test_errors_say_what_is_the_matter() -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    data = disk.content(PATH)

    def told(changed: bytes) -> tuple[str, int | None]:
        other = MemoryDisk()
        put(other, changed)
        error = refused(other)
        return error.reason, error.offset

    assert told(b"") == ("cannot be read: snapshot ends in the middle, after 0 keys", 0)
    assert told(b"REDIS0011") == ("cannot be read: not a snapshot: it does not begin with KEVYSNAP", 0)
    assert told(b"KEVYSNAP\x09" + data[9:])[0] == "cannot be read: snapshot version 9 is not known here"
    assert told(data[:100]) == ("cannot be read: snapshot ends in the middle, after 2 keys", 100)
    assert told(data.replace(b"v\r\n\0", b"v\r\n\1")) == (
        "is damaged: what is in it does not match its checksum",
        None,
    )
    size = data.index(b"#kevynode:position")
    unfit = ("is damaged: its last line does not fit it", None)
    assert told(data.replace(b"snapshot=%d" % size, b"snapshot=0%d" % size)) == unfit
    assert told(data.replace(b"snapshot=%d" % size, b"snapshot=%d" % len(data))) == unfit
    assert told(data + b"more") == ("is damaged: there is more behind the end of its snapshot", 0)


def with_lines(node: Node, lines: bytes) -> bytes:
    """A dump with other lines behind its snapshot, and the right checksum."""
    data = b"".join(encode_snapshot(node.store.freeze(), version=6, cursor=(7, 3)))
    return data + lines + b"#kevynode:dump snapshot=%d crc32=%d\r\n" % (len(data), crc32(data + lines))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"", "no position"),
        (b"#kevynode:local yes\r\n", "no position"),
        (b"#kevynode:end commands=1\r\n", "an annotation that belongs elsewhere"),
        (b"#kevynode:news a=1\r\n", "an annotation that is not known here"),
        (b"text\r\n", "no annotation of kevynode"),
    ],
)
def test_lines_that_are_not_known_are_refused(lines: bytes, reason: str) -> None:
    disk, node = small_node()
    put(disk, with_lines(node, lines))
    error = refused(disk)
    assert error.reason == f"has lines behind its snapshot that cannot be read: {reason}"
    assert error.offset is not None
    assert disk.content(PATH)[error.offset :].startswith(lines + b"#kevynode:dump snapshot=")


# -- what goes wrong while it is written ------------------------------------------------------------------------------


def temporary(disk: MemoryDisk) -> list[str]:
    return [name for name in disk.list(DATA) if "temp-dump" in name]


@pytest.mark.parametrize("stop", range(5))
def test_giving_up_at_any_step_leaves_the_old_one(stop: int) -> None:
    disk, node = new_node()
    assert dump_of(disk, node).run_all()
    for first in range(0, 3000, 500):
        node.do_together(*[("SET", f"key{number}", "v" * 50) for number in range(first, first + 500)])
    dump = dump_of(disk, node)
    for _, job in zip(range(stop), dump.steps(), strict=False):
        assert job is None
    assert len(temporary(disk)) == (stop > 0)
    dump.close()
    dump.close()
    assert (dump.done, dump.failed) == (False, "the dump was given up")
    assert list(dump.steps()) == []
    assert temporary(disk) == []
    assert content(loaded(disk.kill())[0]) == {}


def test_two_at_a_time_are_not_in_each_others_way() -> None:
    disk, node = small_node()
    first = dump_of(disk, node)
    steps = iter(first.steps())
    assert next(steps) is None
    node.do("SET", "new", "1")
    assert dump_of(disk, node).run_all()
    assert temporary(disk) == ["temp-dump-1.kevysnap"]
    first.close()
    assert content(loaded(disk.kill())[0]) == node.content()


def test_what_was_left_behind_is_removed_by_the_next_load() -> None:
    disk, node = small_node()
    assert dump_of(disk, node).run_all()
    put(disk, b"half", f"{DATA}/temp-dump-3.kevysnap")
    put(disk, b"somebody's", f"{DATA}/temp-dump-x.kevysnap")
    loaded(disk)
    assert temporary(disk) == ["temp-dump-x.kevysnap"]
    put(disk, b"half", f"{DATA}/temp-dump-3.kevysnap")
    sweep_dumps(disk, DATA)
    assert temporary(disk) == ["temp-dump-x.kevysnap"]
    sweep_dumps(disk, "/nowhere")


def test_much_is_synced_on_the_way() -> None:
    disk, node = new_node()
    for number in range(20):
        node.do("SET", f"key{number}", bytes(1024 * 1024))
    dump = dump_of(disk, node)
    disk.calls.clear()
    jobs = 0
    for job in dump.steps():
        if job is not None:
            # Nothing that takes long happens outside of jobs.
            assert not {"sync", "rename", "sync_folder"} & {call.method for call in disk.calls}
            job.run()
            disk.calls.clear()
            jobs += 1
    assert jobs == 3
    assert content(loaded(disk.crash(1))[0]) == node.content()


@pytest.mark.parametrize("method", ["list", "create", "write", "sync", "rename", "sync_folder"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_disk_is_reported_and_the_old_one_stays(method: str, error: int) -> None:
    disk, node = new_node()
    node.do("SET", "old", "1")
    assert dump_of(disk, node).run_all()
    old = node.content()
    node.do("SET", "new", "1")
    dump = dump_of(disk, node)
    disk.fail_next(method, error)
    assert not dump.run_all()
    assert dump.failed is not None
    assert dump.failed.startswith(f"writing {PATH} failed: ")
    assert temporary(disk) == []
    for found in (disk.kill(), *map(disk.crash, range(20))):
        # When it has got its name already nobody can tell.
        assert content(loaded(found)[0]) in ([old, node.content()] if method == "sync_folder" else [old])
    assert dump_of(disk, node).run_all()
    assert content(loaded(disk.crash(1))[0]) == node.content()


class PowerCut(BaseException):
    """The power is gone: nothing that runs goes on."""


CHANGES: Final = st.sampled_from(["set", "long", "push", "flush"])


def change(node: Node, action: str, number: int) -> None:
    match action:
        case "set":
            node.do("SET", f"key{number % 3}", str(number))
        case "long":
            node.do("SET", "long", str(number) + "v" * 9000)
        case "push":
            node.do("RPUSH", "list", str(number))
        case "flush":
            node.do("FLUSHALL")


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(CHANGES, max_size=5), min_size=1, max_size=4),
    st.integers(0, 60),
    st.lists(st.integers(0, 2**32), min_size=1, max_size=4),
)
def test_a_crash_at_any_point_leaves_the_old_one_or_the_new_one(
    rounds: list[list[str]], place: int, seeds: list[int]
) -> None:
    disk, node = new_node()
    # What each dump held; the number of those that were said to be done.
    states: list[tuple[Any, int]] = []
    done = 0
    place += len(disk.calls)

    def before(call: Call) -> None:
        if len(disk.calls) > place:
            raise PowerCut

    disk.before = before
    number = 0
    try:
        for actions in rounds:
            for action in actions:
                number += 1
                change(node, action, number)
            states.append((node.content(), node.store.journal.offset))
            assert dump_of(disk, node).run_all()
            done = len(states)
    except PowerCut:
        pass
    disk.before = None
    for found in (disk.kill(), *map(disk.crash, seeds)):
        if not found.exists(PATH):
            assert done == 0
            continue
        store, facts = loaded(found)
        assert (content(store), facts.offset) in states[max(done - 1, 0) :]
        assert temporary(found) == []
