"""The append-only folder: the lock, the manifest's swaps, and what is left lying about."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from support.append_only import DATA, FOLDER, Node, new_node, read_folder
from support.memory_disk import PID, MemoryDisk
from support.store_harness import content

from kevynode.disk import SystemDisk
from kevynode.persist.folder import AppendOnlyFolder, FolderError, LogFile, lock_data_dir, read_manifest
from kevynode.replicate.lineage import Lineage

MANIFEST = FOLDER + "/appendonly.aof.manifest"
LINEAGE = Lineage(3)


def names(disk: MemoryDisk) -> list[str]:
    """The files in the folder, without what their names have in common."""
    return [name.replace("appendonly.aof.", "") for name in disk.list(FOLDER)]


def test_a_data_directory_belongs_to_one_process() -> None:
    disk = MemoryDisk()
    folder = AppendOnlyFolder.open(disk, DATA)
    with pytest.raises(FolderError, match=f"^data_dir /data is in use by process {PID}$"):
        AppendOnlyFolder.open(disk, DATA)
    folder.close()
    AppendOnlyFolder.open(disk, DATA).close()


def test_the_lock_may_be_held_by_whoever_opens_the_folder() -> None:
    disk = MemoryDisk()
    lock = lock_data_dir(disk, DATA)
    with pytest.raises(FolderError, match="is in use by process"):
        lock_data_dir(disk, DATA)
    folder = AppendOnlyFolder.open(disk, DATA, is_locked=True)
    folder.close()
    with pytest.raises(FolderError, match="is in use by process"):
        AppendOnlyFolder.open(disk, DATA)
    disk.fail_next("make_folder")
    with pytest.raises(OSError, match="Input/output error"):
        AppendOnlyFolder.open(disk, DATA, is_locked=True)
    lock.release()
    AppendOnlyFolder.open(disk, DATA).close()


def test_it_works_on_the_disk_of_the_machine(tmp_path: Path) -> None:
    node = Node(SystemDisk(), data_dir=str(tmp_path))
    assert node.start()
    node.do("SET", "a", "1")
    node.writer.write()
    assert node.sync()
    assert node.rewrite().done
    node.do("SET", "b", "2")
    node.writer.write()
    with pytest.raises(FolderError, match=r"is in use by process \d+"):
        read_folder(SystemDisk(), str(tmp_path))
    node.writer.close()
    node.folder.close()
    store, loaded = read_folder(SystemDisk(), str(tmp_path))
    assert content(store) == node.content()
    assert loaded.offset == 2


def test_a_lost_manifest_is_not_taken_for_a_new_beginning() -> None:
    disk, node = new_node()
    node.do("SET", "a", "1")
    node.writer.write()
    node.writer.close()
    node.folder.close()
    disk.remove(MANIFEST)
    with pytest.raises(FolderError, match=r"has no appendonly\.aof\.manifest, but appendonly\.aof\.1\.incr\.aof"):
        AppendOnlyFolder.open(disk, DATA)
    disk.lock(DATA + "/kevynode.lock").release()
    assert names(disk) == ["1.incr.aof"]


def test_a_folder_that_cannot_be_made_gives_the_lock_back() -> None:
    disk = MemoryDisk()
    disk.fail_next("make_folder", errno.EACCES)
    with pytest.raises(OSError, match="Permission denied"):
        AppendOnlyFolder.open(disk, DATA)
    AppendOnlyFolder.open(disk, DATA).close()


def test_reading_a_manifest_changes_nothing() -> None:
    disk = MemoryDisk()
    assert read_manifest(disk, FOLDER) is None
    assert not disk.exists(FOLDER)
    _, node = new_node()
    manifest = read_manifest(node.disk, FOLDER)
    assert manifest == node.folder.manifest


def test_each_step_of_a_swap_is_durable_before_the_next() -> None:
    disk = MemoryDisk()
    folder = AppendOnlyFolder.open(disk, DATA)
    assert folder.is_empty
    increment = folder.create_increment(LINEAGE, 0, {})
    assert not folder.names(increment)
    before = len(disk.calls)
    folder.use_increment(increment)
    steps = [(call.method, call.path.rpartition("/")[2]) for call in disk.calls[before:]]
    temporary = "temp-appendonly.aof.manifest"
    assert steps == [
        ("sync", "appendonly.aof.1.incr.aof"),
        ("create", temporary),
        ("write", temporary),
        ("sync", temporary),
        ("close", temporary),
        ("sync_folder", "appendonlydir"),
        ("rename", temporary),
        ("sync_folder", "appendonlydir"),
    ]
    assert folder.names(increment)
    assert not folder.is_empty


def test_a_base_takes_the_place_of_all_but_the_increments_from_one_on() -> None:
    disk = MemoryDisk()
    folder = AppendOnlyFolder.open(disk, DATA)
    increments = []
    for _ in range(3):
        increments.append(folder.create_increment(LINEAGE, 0, {}))
        folder.use_increment(increments[-1])
    base = folder.create_base(LINEAGE, 0, {})
    assert folder.base_size() == 0
    folder.use_base(base, 0, keep_from=2)
    assert names(disk) == ["1.base.aof", "2.incr.aof", "3.incr.aof", "manifest"]
    assert folder.base_size() == disk.size(FOLDER + "/appendonly.aof.1.base.aof")
    assert folder.size() == sum(disk.size(f"{FOLDER}/{name}") for name in disk.list(FOLDER) if "manifest" not in name)
    alone = folder.create_increment(LINEAGE, 0, {})
    folder.use_base(folder.create_base(LINEAGE, 0, {}), 0, keep_from=alone.sequence, increment=alone)
    assert names(disk) == ["2.base.aof", "4.incr.aof", "manifest"]
    assert [file.name for file in folder.manifest.files] == ["appendonly.aof.2.base.aof", "appendonly.aof.4.incr.aof"]


def test_numbers_are_never_used_twice_whatever_lies_about() -> None:
    disk = MemoryDisk()
    folder = AppendOnlyFolder.open(disk, DATA)
    for _ in range(3):
        folder.discard(folder.create_increment(LINEAGE, 0, {}))
    increment = folder.create_increment(LINEAGE, 0, {})
    assert increment.sequence == 4
    folder.use_increment(increment)
    left = folder.create_base(LINEAGE, 0, {})
    assert names(disk) == ["4.incr.aof", "manifest", f"temp-{left.sequence}.base.aof"]
    folder.close()
    again = AppendOnlyFolder.open(disk.kill(), DATA)
    assert again.create_base(LINEAGE, 0, {}).sequence > left.sequence
    assert again.create_increment(LINEAGE, 0, {}).sequence > 4


def test_sweeping_removes_what_is_ours_and_not_named() -> None:
    disk, node = new_node()
    for name in ("appendonly.aof.7.incr.aof", "temp-appendonly.aof.8.base.aof", "notes.txt", "appendonly.aof.old"):
        disk.create(f"{FOLDER}/{name}").close()
    node.folder.sweep()
    assert disk.list(FOLDER) == [
        "appendonly.aof.1.incr.aof",
        "appendonly.aof.manifest",
        "appendonly.aof.old",
        "notes.txt",
    ]
    disk.create(f"{FOLDER}/appendonly.aof.7.incr.aof").close()
    disk.fail_next("remove")
    node.folder.sweep()
    disk.fail_next("list")
    node.folder.sweep()
    assert "7.incr.aof" in names(disk)
    node.folder.sweep()
    assert "7.incr.aof" not in names(disk)


def test_a_file_that_cannot_be_begun_leaves_nothing() -> None:
    disk, node = new_node()
    before = names(disk)
    disk.fill_up(30)
    with pytest.raises(OSError, match="No space left"):
        node.folder.create_base(LINEAGE, 0, {})
    assert names(disk) == before


def test_a_file_in_parts_is_one_piece() -> None:
    disk = MemoryDisk()
    first, second = (LogFile(disk.create(f"/data/{name}"), f"/data/{name}", "incr", 1) for name in "ab")
    first.write(b"some bytes")
    for part in (b"so", b"me", b" byt"):
        second.write_part(part)
    second.write(b"es")
    assert disk.content("/data/a") == disk.content("/data/b")
    assert first.size == disk.size("/data/a")
    assert first.synced == 0
    first.sync()
    assert first.synced == first.size
    disk.fail_next("close")
    first.close()


def test_a_file_whose_sync_failed_is_never_said_to_be_durable() -> None:
    disk = MemoryDisk()
    file = LogFile(disk.create("/data/a"), "/data/a", "incr", 1)
    file.write(b"some bytes")
    file.sync()
    synced = file.size
    file.write(b"and more")
    disk.fail_next("sync", errno.EIO)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
    assert file.synced == synced
    assert disk.methods("/data/a").count("sync") == 2
