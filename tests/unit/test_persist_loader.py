"""Loading, checking and repairing an append-only folder: what is refused, what is cut, what is said."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.append_only import DATA, FOLDER, Node, new_node, read_folder
from support.memory_disk import MemoryDisk
from support.store_harness import content

from kevynode.persist.folder import AppendOnlyFolder, FolderError
from kevynode.persist.loader import Cut, Loaded, LoadError, check, exhaust, fix, load
from kevynode.store.apply import Applier
from kevynode.store.store import Store

BASE = FOLDER + "/appendonly.aof.1.base.aof"
FIRST = FOLDER + "/appendonly.aof.1.incr.aof"
SECOND = FOLDER + "/appendonly.aof.2.incr.aof"
THIRD = FOLDER + "/appendonly.aof.3.incr.aof"
MANIFEST = FOLDER + "/appendonly.aof.manifest"


def put(disk: MemoryDisk, path: str, data: bytes) -> None:
    """Make a file hold other bytes, durably."""
    file = disk.create(path)
    file.write(data)
    file.sync()
    file.close()
    disk.sync_folder(FOLDER)


def small_folder() -> tuple[MemoryDisk, list[Any]]:
    """A folder of a base and two increments, and what was there at each write, the newest last."""
    disk, node = new_node()
    node.do_together(("SET", "a", "1"), ("RPUSH", "l", "x", "y"))
    assert node.rewrite().done
    states = [node.content()]
    for count in range(2):
        if count:
            job = node.writer.begin_increment()
            assert job is not None
            job.run()
            assert node.writer.end_increment(job)
        for number in range(3):
            node.do("SET", f"k{count}{number}", "value")
            node.do_together(("INCR", "a"), ("RPUSH", "l", "z"))
            node.writer.write()
            node.sync()
            states.append(node.content())
    node.writer.close()
    node.folder.close()
    assert disk.list(FOLDER) == [path.rpartition("/")[2] for path in (BASE, SECOND, THIRD, MANIFEST)]
    return disk, states


def load_or_refusal(disk: MemoryDisk) -> tuple[Store, Loaded] | LoadError:
    """What comes of loading what there is."""
    try:
        return read_folder(disk)
    except LoadError as error:
        return error


def test_an_empty_folder_is_a_beginning() -> None:
    disk = MemoryDisk()
    store, loaded = read_folder(disk)
    assert content(store) == {}
    assert (loaded.lineage, loaded.offset, loaded.keys, loaded.bytes) == (None, 0, 0, 0)
    assert not loaded.last_is_empty
    assert check(disk, DATA) == []


def test_a_folder_is_read_back_with_its_facts() -> None:
    disk, states = small_folder()
    progress: list[tuple[int, int]] = []
    folder = AppendOnlyFolder.open(disk, DATA)
    store = Store(random.Random(1))
    loaded = exhaust(load(folder, store, Applier(store), lambda done, whole: progress.append((done, whole))))
    folder.close()
    size = sum(disk.size(path) for path in (BASE, SECOND, THIRD))
    assert content(store) == states[-1]
    assert (loaded.keys, loaded.bytes, loaded.commands) == (8, size, 2 + 6 * 3)
    assert progress[-1] == (size, size)
    assert store.journal.pending == []
    assert store.journal.offset == 0
    assert not store.touched
    assert (loaded.cut, loaded.last_is_empty) == (None, False)
    reports = check(disk, DATA)
    assert [(report.path, report.error, report.good, report.commands) for report in reports] == [
        (BASE, None, disk.size(BASE), 2),
        (SECOND, None, disk.size(SECOND), 9),
        (THIRD, None, disk.size(THIRD), 9),
    ]
    folder = AppendOnlyFolder.open(disk, DATA)
    assert fix(folder) is None
    folder.close()


def test_restarts_without_a_write_leave_no_files_behind() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    for history in range(2, 6):
        disk = disk.kill()
        node = Node(disk, history=history)
        assert node.loaded.last_is_empty == (history > 2)
        assert node.start()
    node.folder.sweep()
    assert len([name for name in disk.list(FOLDER) if "incr" in name]) == 2
    _, loaded = read_folder(disk.kill())
    assert loaded.lineage is not None
    assert loaded.lineage.history == 5
    assert [history for history, _ in loaded.lineage.ancestors] == [4, 3, 2, 1]


@pytest.mark.parametrize("path", [BASE, SECOND, THIRD])
def test_every_truncation_loads_a_state_or_is_refused_by_name(path: str) -> None:
    disk, states = small_folder()
    whole = disk.content(path)
    loads = 0
    for size in range(len(whole)):
        found = disk.kill()
        found.truncate(path, size)
        outcome = load_or_refusal(found)
        if isinstance(outcome, LoadError):
            assert outcome.path == path or (path == SECOND and outcome.path == THIRD)
            assert outcome.path in str(outcome)
            continue
        store, loaded = outcome
        assert path == THIRD
        assert content(store) in states[4 - 1 :]
        assert loaded.cut is None or (loaded.cut.path, loaded.cut.bytes) == (THIRD, size - loaded.cut.offset)
        # What is loaded again has nothing more to be cut.
        again, second = read_folder(found)
        assert second.cut is None
        assert content(again) == content(store)
        loads += 1
    assert (loads > 0) == (path == THIRD)


@pytest.mark.parametrize("path", [BASE, SECOND, THIRD])
def test_every_flipped_byte_loads_a_state_or_is_refused_by_name(path: str) -> None:
    disk, states = small_folder()
    whole = disk.content(path)
    draw = random.Random(4)
    refused = 0
    for place in range(len(whole)):
        found = disk.kill()
        flipped = bytearray(whole)
        flipped[place] ^= draw.randrange(1, 256)
        put(found, path, bytes(flipped))
        outcome = load_or_refusal(found)
        if isinstance(outcome, LoadError):
            assert outcome.path in (path, THIRD)
            refused += 1
            continue
        assert path == THIRD
        assert content(outcome[0]) in states[3:]
    # Only in what was written last can a changed byte look like an end.
    assert refused > len(whole) * (1 if path != THIRD else 0.6) - 1


@pytest.mark.parametrize("step", [64, 4096])
def test_damage_before_what_was_durable_is_refused_with_its_place(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kevynode.persist.loader._SCAN", step)
    disk, _ = small_folder()
    data = disk.content(THIRD)
    place = data.index(b"k11")
    put(disk, THIRD, data[:place] + b"K" + data[place + 1 :])
    with pytest.raises(LoadError) as caught:
        read_folder(disk)
    assert caught.value.path == THIRD
    assert caught.value.offset is not None
    assert caught.value.offset <= place
    assert f"is damaged at byte {caught.value.offset}" in str(caught.value)
    assert disk.content(THIRD)[:place] == data[:place]
    reports = check(disk, DATA)
    assert [report.error is None for report in reports] == [True, True, False]
    assert reports[2].can_be_fixed
    assert not reports[2].can_be_cut
    assert reports[2].good <= place
    folder = AppendOnlyFolder.open(disk, DATA)
    cut = fix(folder)
    folder.close()
    assert cut == Cut(THIRD, reports[2].good, len(data) - reports[2].good, reports[2].error or "")
    read_folder(disk)


def test_a_gap_in_a_value_is_no_value() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    node.sync()
    before = disk.size(FIRST)
    state = node.content()
    node.do("SET", "long", "v" * 20_000)
    node.writer.write()
    data = bytearray(disk.content(FIRST))
    data[8192:12288] = bytes(4096)
    put(disk, FIRST, bytes(data))
    found = disk.kill()
    assert check(found, DATA)[0].can_be_cut
    store, loaded = read_folder(found)
    assert content(store) == state
    assert loaded.cut is not None
    assert (loaded.cut.offset, loaded.cut.bytes) == (before, len(data) - before)
    assert found.size(FIRST) == before
    # Once it was durable a gap in it is damage.
    node.sync()
    node.do("SET", "b", "2")
    node.writer.write()
    file = bytearray(node.disk.content(FIRST))  # type: ignore[attr-defined]  # a disk in memory
    file[8192:12288] = bytes(4096)
    put(disk, FIRST, bytes(file))
    with pytest.raises(LoadError, match="is damaged"):
        read_folder(disk.kill())


def test_proof_of_what_was_durable_is_found_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, node = new_node()
    node.do("SET", "long", "v" * 10_000)
    node.writer.write()
    node.sync()
    node.do("SET", "b", "2")
    node.writer.write()
    data = disk.content(FIRST)
    put(disk, FIRST, data[:4096] + bytes(4096) + data[8192:])
    for step in range(60, 260, 3):
        monkeypatch.setattr("kevynode.persist.loader._SCAN", step)
        report = check(disk, DATA)[0]
        assert not report.can_be_cut
        assert "had been durable" in (report.error or "")


def test_a_changed_byte_in_what_was_written_last_is_damage_and_no_torn_end() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    data = disk.content(FIRST)
    place = data.index(b"a\r\n$1")
    put(disk, FIRST, data[:place] + b"b" + data[place + 1 :])
    with pytest.raises(LoadError, match="does not match its digest"):
        read_folder(disk.kill())
    assert check(disk, DATA)[0].can_be_fixed


def test_a_torn_middle_file_is_refused_though_its_end_is_clean() -> None:
    disk, _ = small_folder()
    data = disk.content(SECOND)
    end = data.index(b"#kevynode:digest ", data.index(b"k01"))
    end = data.index(b"\n", end) + 1
    put(disk, SECOND, data[:end])
    with pytest.raises(LoadError, match="begins at offset 11, but the file before it ends at 8"):
        read_folder(disk)


def test_files_that_are_not_there_or_not_what_the_manifest_says() -> None:
    disk, _ = small_folder()
    missing = disk.kill()
    missing.remove(SECOND)
    with pytest.raises(LoadError, match="is missing, though the manifest names it"):
        read_folder(missing)
    assert "missing" in (check(missing, DATA)[1].error or "")
    swapped = disk.kill()
    put(swapped, SECOND, disk.content(THIRD))
    with pytest.raises(LoadError, match="says that it is incr 3, the manifest that it is incr 2"):
        read_folder(swapped)
    empty = disk.kill()
    put(empty, THIRD, b"")
    with pytest.raises(LoadError, match="ends in an unfinished record at byte 0"):
        read_folder(empty)


def test_a_base_that_is_not_complete_is_refused() -> None:
    disk, _ = small_folder()
    data = disk.content(BASE)
    put(disk, BASE, data[: data.rindex(b"#kevynode:end")])
    with pytest.raises(LoadError, match="is a base, and not complete"):
        read_folder(disk)


def test_a_newer_format_is_refused_by_name_and_left_alone() -> None:
    disk, _ = small_folder()
    data = disk.content(THIRD).replace(b"version=1", b"version=9")
    put(disk, THIRD, data)
    with pytest.raises(LoadError, match="is written in format version 9, newer than 1"):
        read_folder(disk)
    assert disk.content(THIRD) == data
    assert not check(disk, DATA)[2].can_be_fixed


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("appendonly.aof.1.base.rdb", b"REDIS0011"),
        ("appendonly.aof.1.base.aof", b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n"),
    ],
)
def test_a_folder_of_valkey_is_refused_with_a_hint(name: str, data: bytes) -> None:
    disk = MemoryDisk()
    disk.make_folder(FOLDER)
    put(disk, f"{FOLDER}/{name}", data)
    put(disk, MANIFEST, f"file {name} seq 1 type b\n".encode())
    with pytest.raises(LoadError, match="was not written by kevynode: bring its data in with `kevynode import`"):
        read_folder(disk)


def test_a_command_that_cannot_be_applied_is_named_with_its_place() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.store.journal.pending.append(((b"RPUSH", b"a", b"x"), b"a", ()))
    node.store.commit()
    node.writer.write()
    place = disk.content(FIRST).index(b"*3\r\n$5\r\nRPUSH")
    with pytest.raises(LoadError, match=f"cannot be applied at byte {place}: RPUSH 'a': WRONGTYPE") as caught:
        read_folder(disk.kill())
    assert caught.value.offset == place


def test_fixing_does_not_touch_what_it_cannot_mend() -> None:
    disk, _ = small_folder()
    data = disk.content(SECOND)
    put(disk, SECOND, data[:-10] + b"x" + data[-9:])
    folder = AppendOnlyFolder.open(disk, DATA)
    with pytest.raises(LoadError) as caught:
        fix(folder)
    assert caught.value.path == SECOND
    assert disk.size(SECOND) == len(data)
    assert disk.content(THIRD)
    folder.close()


def test_a_manifest_that_is_none_is_refused_with_its_line() -> None:
    disk, _ = small_folder()
    put(disk, MANIFEST, disk.content(MANIFEST) + b"file x\n")
    with pytest.raises(FolderError, match=r"appendonly.aof.manifest: line 4: "):
        read_folder(disk)
    with pytest.raises(FolderError, match="line 4"):
        check(disk, DATA)
    # The lock is free again.
    disk.lock(DATA + "/kevynode.lock").release()


def test_a_long_load_has_many_steps() -> None:
    disk, node = new_node()
    for first in range(0, 5000, 500):
        node.do_together(*[("SET", f"key{number}", "v" * 50) for number in range(first, first + 500)])
    node.writer.write()
    folder = AppendOnlyFolder.open(disk.kill(), DATA)
    store = Store(random.Random(1))
    assert sum(1 for _ in load(folder, store, Applier(store))) > 30
    assert content(store) == node.content()


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_the_manifest_has_lost_is_missed(missing: int) -> None:
    disk = MemoryDisk()
    for history in (1, 2, 3):
        node = Node(disk, history=history)
        assert node.start()
        node.do("SET", f"k{history}", "v")
        assert node.writer.write()
        node.sync()
        node.writer.close()
        node.folder.close()
    manifest = f"{FOLDER}/appendonly.aof.manifest"
    lines = disk.read(manifest).splitlines(keepends=True)
    del lines[missing]
    put(disk, manifest, b"".join(lines))
    reports = check(disk, DATA)
    refused = [report for report in reports if report.error is not None]
    assert len(refused) == 1
    expected = "no file has what was before" if missing == 0 else "but the file before it ends at 1"
    assert expected in (refused[0].error or "")
    assert not refused[0].can_be_fixed
    with pytest.raises(LoadError, match=expected):
        read_folder(disk)


def test_a_bit_of_the_manifest_that_has_changed_leaves_out_nothing() -> None:
    disk, node = new_node()
    node.do("SET", "k1", "v")
    assert node.rewrite().done
    node.do("SET", "k2", "v")
    assert node.writer.write()
    node.sync()
    name = f"{FOLDER}/appendonly.aof.manifest"
    manifest, refused = disk.read(name), 0
    for place in range(8 * len(manifest)):
        found = disk.kill()
        changed = bytearray(manifest)
        changed[place // 8] ^= 1 << place % 8
        put(found, name, bytes(changed))
        try:
            store, _ = read_folder(found)
        except (FolderError, LoadError):
            refused += 1
        else:
            assert content(store) == node.content(), bytes(changed)
    # The others are of numbers that nothing depends on, and of words in capitals.
    assert refused > 7 * len(manifest)
